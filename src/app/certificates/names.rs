//! Under which names this machine is found.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket},
};

/// Most interface addresses in a certificate: small clients read certificates into small buffers.
const ADDRESSES_MAX: usize = 16;

/// `localhost`, the host name, the loopback and interface addresses, and what was configured; in
/// this order, each once.
pub(super) fn wanted(configured: &[String]) -> Vec<String> {
    let mut names = vec!["localhost".to_owned()];
    names.extend(host_name());
    names.push(Ipv4Addr::LOCALHOST.to_string());
    names.push(Ipv6Addr::LOCALHOST.to_string());
    let mut addresses = interface_addresses();
    addresses.truncate(ADDRESSES_MAX);
    names.extend(addresses.iter().map(IpAddr::to_string));
    // An address is compared by its value, so it is written in one way.
    names.extend(configured.iter().map(|name| match name.parse::<IpAddr>() {
        Ok(address) => address.to_string(),
        Err(_) => name.to_ascii_lowercase(),
    }));
    let mut seen = std::collections::HashSet::new();
    names.retain(|name| seen.insert(name.clone()));
    names
}

fn host_name() -> Option<String> {
    let name = rustix::system::uname()
        .nodename()
        .to_str()
        .ok()?
        .to_ascii_lowercase();
    let is_name = !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-.".contains(&byte));
    is_name.then_some(name)
}

/// The addresses of this machine that last: no loopback, no link-local, no temporary ones.
fn interface_addresses() -> Vec<IpAddr> {
    let mut addresses = Vec::new();
    // The kernel's own tables; where there are none (not Linux), the address of the default route.
    match fs::read_to_string("/proc/net/fib_trie") {
        Ok(table) => addresses.extend(local_v4(&table).into_iter().map(IpAddr::V4)),
        Err(_) => addresses.extend(towards("0.0.0.0:0", "192.0.2.1:9")),
    }
    match fs::read_to_string("/proc/net/if_inet6") {
        Ok(table) => addresses.extend(local_v6(&table).into_iter().map(IpAddr::V6)),
        Err(_) => addresses.extend(towards("[::]:0", "[2001:db8::1]:9")),
    }
    addresses.retain(|address| !address.is_loopback() && !address.is_unspecified());
    addresses.sort();
    addresses.dedup();
    addresses
}

/// The entries marked `host LOCAL`; the line before names the address.
fn local_v4(table: &str) -> Vec<Ipv4Addr> {
    let mut last: Option<Ipv4Addr> = None;
    let mut found = Vec::new();
    for line in table.lines() {
        if let Some(address) = line.trim_start().strip_prefix("|-- ") {
            last = address.trim().parse().ok();
        } else if line.trim() == "/32 host LOCAL" {
            found.extend(last);
        }
    }
    found
}

/// Lines of: address, interface number, prefix length, scope, flags, name; all hexadecimal.
fn local_v6(table: &str) -> Vec<Ipv6Addr> {
    const GLOBAL: u32 = 0x00; // the scope; unique local addresses have it too
    const TEMPORARY: u32 = 0x01; // the flag of addresses that change every day
    let address = |line: &str| {
        let mut words = line.split_ascii_whitespace();
        let address = u128::from_str_radix(words.next()?, 16).ok()?;
        let scope = u32::from_str_radix(words.nth(2)?, 16).ok()?;
        let flags = u32::from_str_radix(words.next()?, 16).ok()?;
        (scope == GLOBAL && flags & TEMPORARY == 0).then(|| Ipv6Addr::from_bits(address))
    };
    table.lines().filter_map(address).collect()
}

/// The address this machine would use towards another; no packet is sent.
fn towards(from: &str, to: &str) -> Option<IpAddr> {
    let socket = UdpSocket::bind(from).ok()?;
    socket.connect(to).ok()?;
    socket.local_addr().ok().map(|address| address.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_there_once_and_in_one_form() {
        let configured = ["Broker.Example", "0:0:0:0:0:0:0:1", "10.9.8.7", "10.9.8.7"];
        let names = wanted(&configured.map(str::to_owned));
        assert_eq!(names.first().map(String::as_str), Some("localhost"));
        for name in ["127.0.0.1", "::1", "broker.example", "10.9.8.7"] {
            assert_eq!(
                names.iter().filter(|found| *found == name).count(),
                1,
                "{name}"
            );
        }
    }

    #[test]
    fn local_addresses_are_read_from_the_routing_table() {
        let table = "Main:\n  +-- 0.0.0.0/0 3 0 5\n     |-- 0.0.0.0\n        /0 universe UNICAST\n\
                     |-- 192.0.2.10\n        /32 host LOCAL\n     |-- 192.0.2.255\n        \
                     /32 link BROADCAST\n";
        assert_eq!(local_v4(table), [Ipv4Addr::new(192, 0, 2, 10)]);
    }

    #[test]
    fn link_local_and_temporary_addresses_are_left_out() {
        let table = "00000000000000000000000000000001 01 80 10 80       lo\n\
                     20010db8000000000000000000000007 02 40 00 80     eth0\n\
                     20010db8000000000000000000000008 02 40 00 01     eth0\n\
                     fe800000000000000000000000000001 02 40 20 80     eth0\nrubbish\n";
        assert_eq!(
            local_v6(table),
            ["2001:db8::7".parse::<Ipv6Addr>().unwrap()]
        );
    }

    #[test]
    fn the_route_names_an_address_of_this_machine() {
        if let Some(address) = towards("0.0.0.0:0", "192.0.2.1:9") {
            assert!(UdpSocket::bind((address, 0)).is_ok(), "{address}");
        }
    }
}
