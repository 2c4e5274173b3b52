//! Questions about this host that need no task.

use super::harness::{in_namespace, ip};
use crate::net::{LocalAddress, interface_exists, local_addresses};

#[test]
fn interfaces_and_addresses_are_those_of_the_namespace() {
    in_namespace(async || {
        ip("link add eth7 type veth peer name eth9");
        ip("addr add 10.9.7.1/23 dev eth7");
        ip("addr add 2001:db8:7::1/60 dev eth7 nodad");
        assert!(interface_exists("eth7") && !interface_exists("eth8"));
        let all = local_addresses().unwrap();
        for (address, prefix_length) in [("10.9.7.1", 23), ("2001:db8:7::1", 60)] {
            let address = address.parse().unwrap();
            let wanted = LocalAddress { interface: "eth7".into(), address, prefix_length };
            assert!(all.contains(&wanted), "{wanted:?} is not in {all:?}");
        }
    });
}
