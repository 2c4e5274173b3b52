//! The benchmark's own rig still works; what it measures is no test.

#[test]
fn generated_frames_get_through_medlb_and_its_contenders() {
    tests::bench::wire::works(256).unwrap();
}
