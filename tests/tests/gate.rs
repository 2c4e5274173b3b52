//! A regression gate that cannot flake: what the compiler made of each path of the data path, and
//! what the verifier thinks of it, against `tests/gate.txt`. Times are reported by
//! `cargo xtask bench`, never gated.
//!
//! No path may have more instructions, helper calls or look-ups than recorded. The figures are exact
//! and the same on every machine with the compiler, LLVM and linker that the file names; another
//! compiler makes other instructions, so then nothing is compared, and the test says so. CI has the
//! compiler of the file and must compare: there `MEDLB_GATE=strict` makes a failure of it. After a
//! change that is worth its price: `MEDLB_GATE=write cargo test -p tests --test gate`, and commit
//! the file.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;

use aya_obj::Object;
use tests::plane::{Plane, object};

/// Written by `cargo xtask build-ebpf` beside the object.
const COMPILER: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../target/bpf/compiler.txt");
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

/// What `tests/gate.txt` says.
struct Recorded {
    compiler: String,
    costs: BTreeMap<String, Cost>,
}

fn recorded() -> Recorded {
    let text = fs::read_to_string(FILE).expect("tests/gate.txt");
    let compiler = text.lines().find_map(|line| line.strip_prefix("# built by "));
    let costs = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let mut words = line.split_whitespace();
        let name = words.next().expect("a name").to_owned();
        let mut number = || words.next().and_then(|w| w.parse().ok()).expect("a number");
        (name, Cost { instructions: number(), helpers: number(), look_ups: number() })
    });
    Recorded { compiler: compiler.expect("its compiler").to_owned(), costs: costs.collect() }
}

fn write(compiler: &str, costs: &BTreeMap<String, Cost>) {
    let mut text = format!(
        "# function instructions helper-calls look-ups; see tests/gate.rs\n# built by {compiler}\n"
    );
    for (name, cost) in costs {
        writeln!(text, "{name} {} {} {}", cost.instructions, cost.helpers, cost.look_ups).unwrap();
    }
    fs::write(FILE, text).unwrap();
}

/// Each path that is not as recorded, in words; and whether one has grown or is not recorded.
fn differences(then: &BTreeMap<String, Cost>, now: &BTreeMap<String, Cost>) -> (String, bool) {
    let (mut text, mut worse) = (String::new(), false);
    let names: BTreeSet<_> = then.keys().chain(now.keys()).collect();
    for name in names {
        let (then, now) = (then.get(name), now.get(name));
        if then == now {
            continue;
        }
        worse |= match (then, now) {
            (Some(then), Some(now)) => {
                now.instructions > then.instructions
                    || now.helpers > then.helpers
                    || now.look_ups > then.look_ups
            }
            _ => true,
        };
        writeln!(text, "  {name}: recorded {then:?}, now {now:?}").unwrap();
    }
    (text, worse)
}

/// Past the test harness, which hides what a test that passes prints.
fn say(text: &str) {
    std::io::stderr().write_all(format!("gate: {text}\n").as_bytes()).unwrap();
}

#[test]
fn no_path_has_more_instructions_or_look_ups_than_recorded() {
    let measured = measured();
    assert!(measured.contains_key("medlb"), "{measured:?}");
    let compiler = fs::read_to_string(COMPILER).expect("run `cargo xtask build-ebpf`");
    let compiler = compiler.trim();
    let mode = std::env::var("MEDLB_GATE").unwrap_or_default();
    if mode == "write" {
        return write(compiler, &measured);
    }
    let recorded = recorded();
    if recorded.compiler != compiler {
        let why = format!(
            "NOT COMPARED: the object was built by {compiler}, tests/gate.txt is of {}",
            recorded.compiler
        );
        assert!(mode != "strict", "{why}");
        return say(&why);
    }
    let (text, worse) = differences(&recorded.costs, &measured);
    assert!(
        !worse,
        "paths have grown or are not in tests/gate.txt:\n{text}If that is worth its price: \
         MEDLB_GATE=write cargo test -p tests --test gate"
    );
    if !text.is_empty() {
        say(&format!("paths have become shorter; record them (MEDLB_GATE=write):\n{text}"));
    }
}

#[test]
fn one_instruction_more_is_noticed_and_one_less_is_no_failure() {
    let cost = |instructions| Cost { instructions, helpers: 3, look_ups: 2 };
    let of = |name: &str, instructions| BTreeMap::from([(name.to_owned(), cost(instructions))]);
    assert_eq!(differences(&of("medlb", 100), &of("medlb", 100)), (String::new(), false));
    assert!(differences(&of("medlb", 100), &of("medlb", 101)).1);
    let (text, worse) = differences(&of("medlb", 100), &of("medlb", 99));
    assert!(!worse && text.contains("medlb"), "{text}");
    assert!(differences(&of("medlb", 100), &of("other", 100)).1);
}

#[test]
fn the_verifier_has_plenty_of_room_left() {
    let plane = Plane::load_with(1024, 1024, false).expect("the object loads");
    let info = plane.program().unwrap().info().unwrap();
    // Kernels before 5.16 do not say.
    let verified = info.verified_instruction_count().unwrap_or(0);
    assert!(verified <= VERIFIED, "{verified} instructions verified, more than {VERIFIED}");
}
