//! A regression gate that cannot flake: what the compiler made of each path of the data path, and
//! what the verifier thinks of it, against `tests/gate.txt`. Times are reported by
//! `cargo xtask bench`, never gated.
//!
//! Look-ups and other helper calls of the path of established flows may not become more;
//! instructions may by a twentieth, because compilers differ. After a change that is worth its price:
//! `MEDLB_GATE=write cargo test -p tests --test gate`, and commit the file.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use aya_obj::Object;
use tests::plane::{Plane, object};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/gate.txt");
/// `bpf_map_lookup_elem` (include/uapi/linux/bpf.h).
const LOOK_UP: i32 = 1;
/// BPF_JMP | BPF_CALL.
const CALL: u8 = 0x85;
/// The kernel gives up at a million. Kernels differ by a factor of three (7.2 needs most).
const VERIFIED: u32 = 150_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Cost {
    instructions: usize,
    helpers: usize,
    look_ups: usize,
}

/// Of the program's entry, where the path of established flows is, and of the global functions.
fn measured() -> BTreeMap<String, Cost> {
    let bytes = fs::read(object()).expect("no object: run `cargo xtask build-ebpf`");
    let object = Object::parse(&bytes).expect("an object that aya can read");
    let mut costs = BTreeMap::new();
    for function in object.functions.values() {
        let family = function.name.ends_with("_v4") || function.name.ends_with("_v6");
        if function.name != "medlb" && !family {
            continue;
        }
        let helpers =
            || function.instructions.iter().filter(|i| i.code == CALL && i.src_reg() == 0);
        let cost = Cost {
            instructions: function.instructions.len(),
            helpers: helpers().count(),
            look_ups: helpers().filter(|i| i.imm == LOOK_UP).count(),
        };
        costs.insert(function.name.clone(), cost);
    }
    costs
}

fn recorded() -> BTreeMap<String, Cost> {
    let text = fs::read_to_string(FILE).expect("tests/gate.txt");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split_whitespace();
            let name = words.next().expect("a name").to_owned();
            let mut number = || words.next().and_then(|w| w.parse().ok()).expect("a number");
            (name, Cost { instructions: number(), helpers: number(), look_ups: number() })
        })
        .collect()
}

fn write(costs: &BTreeMap<String, Cost>) {
    let mut text =
        String::from("# function instructions helper-calls look-ups; see tests/gate.rs\n");
    for (name, cost) in costs {
        writeln!(text, "{name} {} {} {}", cost.instructions, cost.helpers, cost.look_ups).unwrap();
    }
    fs::write(FILE, text).unwrap();
}

#[test]
fn no_path_has_more_look_ups_or_many_more_instructions_than_recorded() {
    let measured = measured();
    assert!(measured.contains_key("medlb"), "{measured:?}");
    if std::env::var_os("MEDLB_GATE").is_some_and(|value| value == "write") {
        return write(&measured);
    }
    for (name, then) in &recorded() {
        let now = measured.get(name).unwrap_or_else(|| panic!("{name} is gone: record anew"));
        // The entry has the path of established flows; the other steps see first packets only.
        let more = if name == "medlb" { 0 } else { 2 };
        assert!(
            now.look_ups <= then.look_ups + more
                && now.helpers <= then.helpers + more
                && now.instructions <= then.instructions + then.instructions / 20,
            "{name} grew: {now:?}, recorded {then:?}"
        );
    }
}

#[test]
fn the_verifier_has_plenty_of_room_left() {
    let plane = Plane::load_with(1024, 1024, false).expect("the object loads");
    let info = plane.program().unwrap().info().unwrap();
    // Kernels before 5.16 do not say.
    let verified = info.verified_instruction_count().unwrap_or(0);
    assert!(verified <= VERIFIED, "{verified} instructions verified, more than {VERIFIED}");
}
