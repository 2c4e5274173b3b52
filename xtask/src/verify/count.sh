# Runs in the machine: what forwards, one after the other, between the interfaces that
# tests/src/bin/count.rs sends from and counts at. Fixed MAC addresses: 1 and 3 outside, 2 and 4 here.
vip=10.77.1.100
real=10.77.2.21
mac=02:00:00:00:00:0
# By its path: the shell has an ip of its own, which knows less.
ip() { /usr/sbin/ip "$@"; }
lb() { /usr/bin/nsenter --net=/run/netns/lb "$@"; }
out() { /usr/bin/nsenter --net=/run/netns/out "$@"; }
set_sysctl() { lb sh -c "echo $2 > /proc/sys/net/$1"; }

network() {
    ip netns add out
    ip netns add lb
    ip link add g0 netns out address ${mac}1 type veth peer name eth0 netns lb address ${mac}2
    ip link add s0 netns out address ${mac}3 type veth peer name eth1 netns lb address ${mac}4
    for link in lo g0 s0; do ip -n out link set $link up; done
    for link in lo eth0 eth1; do ip -n lb link set $link up; done
    ip -n lb addr add 10.77.1.2/24 dev eth0
    ip -n lb addr add 10.77.2.2/24 dev eth1
    ip -n lb neigh add $real lladdr ${mac}3 dev eth1 nud permanent
    # A NIC's driver has NAPI and GRO as well.
    lb /usr/sbin/ethtool -K eth0 gro on
    set_sysctl ipv4/ip_forward 1
}
count() { # NAME ADDRESS [OPTION]
    out /programs/count $objects/wire.bpf.o --name "$1" --to ${mac}2 --address $2 $3 2>&1 ||
        echo "failed $1"
}
end() {
    ip netns del lb
    ip netns del out
}

nothing() {
    ip netns add out
    ip -n out link add g0 address ${mac}1 type veth peer name s0 address ${mac}2
    for link in lo g0 s0; do ip -n out link set $link up; done
    count "XDP_DROP" $vip
    ip netns del out
}
routing() { network; count "routing" $real; end; }
ipvs() { # METHOD OPTION
    network
    ip -n lb addr add $vip/32 dev lo
    lb /usr/sbin/ipvsadm -A -t $vip:104 -s wlc
    lb /usr/sbin/ipvsadm -a -t $vip:104 -r $real:104 $2
    count "IPVS, $1" $vip
    lb /usr/sbin/ipvsadm -L -n --stats
    end
}
nftables() { # NAME RULE
    network
    set_sysctl netfilter/nf_conntrack_tcp_be_liberal 1
    # A NIC would have verified it.
    set_sysctl netfilter/nf_conntrack_checksum 0
    lb /usr/sbin/nft "table ip lb {
        chain before {
            type nat hook prerouting priority dstnat
            ip daddr $vip tcp dport 104 dnat to $real
        }
        chain after {
            type nat hook postrouting priority srcnat
            $2
        }
    }"
    count "$1" $vip --join
    end
}
medlb() { # METHOD
    network
    lower=$(echo $1 | tr A-Z a-z)
    mkdir -p /run/$lower
    source=
    if [ $1 = SNAT ]; then source="source_address: 10.77.2.2, "; fi
    cat > /run/$lower/medlb.yaml << END
interfaces: [eth0, eth1]
global: {socket: /run/$lower/socket, state_dir: /run/$lower/state, pin_dir: /sys/fs/bpf/$lower,
  maximum_flows: 65536}
virtual_services:
  - {label: COUNT, address: $vip, ports: 104, forwarding_method: $lower, ${source}health_check: none,
     real_servers: [{label: R, address: $real}]}
END
    (exec /usr/bin/nsenter --net=/run/netns/lb /programs/medlb run --config /run/$lower/medlb.yaml) \
        > /run/$lower/log 2>&1 &
    pid=$!
    tries=0
    until grep -q "$ready" /run/$lower/log || [ $tries -gt 120 ]; do
        sleep 1
        tries=$((tries + 1))
    done
    sleep 2
    count "medlb, $1" $vip
    lb /programs/medlb stats --socket /run/$lower/socket
    tail -n 5 /run/$lower/log
    kill $pid
    wait $pid
    lb /programs/medlb teardown --config /run/$lower/medlb.yaml
    end
}

# The firmware leaves the console in the middle of a line.
echo
nothing
routing
medlb DR
medlb NAT
medlb SNAT
ipvs DR -g
ipvs NAT -m
nftables "nftables DNAT" ""
nftables "nftables DNAT + masquerade" "oifname eth1 masquerade"
