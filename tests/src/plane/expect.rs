//! What a fixture states: the action, the bytes, and every counter that moved.

use super::frame::Frame;
use super::{Action, Moved, Plane};

/// Runs one frame and checks action, bytes and every counter.
#[track_caller]
pub fn expect(
    plane: &mut Plane,
    frame: &Frame,
    action: Action,
    out: &Frame,
    moved: &[(&str, i64)],
) {
    expect_bytes(plane, &frame.bytes(), action, &out.bytes(), moved);
}

/// As [`expect`], with bytes on both sides.
#[track_caller]
pub fn expect_bytes(
    plane: &mut Plane,
    frame: &[u8],
    action: Action,
    out: &[u8],
    moved: &[(&str, i64)],
) {
    let before = plane.counters().expect("PROG_TEST_RUN works");
    let (got, bytes) = plane.run(frame).expect("PROG_TEST_RUN works");
    let after = plane.counters().expect("PROG_TEST_RUN works");
    let expected: Moved = moved.iter().map(|(name, n)| ((*name).to_string(), *n)).collect();
    assert_eq!((got, Plane::moved(&before, &after)), (action, expected));
    assert_eq!(hex(&bytes), hex(out));
}

/// Bytes as people read them.
pub fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(2)
        .map(|w| w.iter().map(|b| format!("{b:02x}")).collect::<String>() + " ")
        .collect()
}

/// The RST that answers `to`, which is at least 60 bytes long.
pub fn rst_for(to: &Frame, seq: u32, ack: u32, flags: u8) -> Frame {
    Frame {
        dst_mac: to.src_mac,
        src_mac: to.dst_mac,
        src: to.dst,
        dst: to.src,
        flags,
        seq,
        ack,
        window: 0,
        ttl: 64,
        payload: Vec::new(),
        options: Vec::new(),
        id: 0,
        padding: 6,
        ..to.clone()
    }
}
