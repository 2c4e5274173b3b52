//! Questions about this host that need no task.

use super::harness::{in_namespace, ip};
use crate::net::interface_exists;

#[test]
fn interfaces_are_those_of_the_namespace() {
    in_namespace(async || {
        ip("link add eth7 type veth peer name eth9");
        assert!(interface_exists("eth7") && !interface_exists("eth8"));
    });
}
