//! The kernel's own counters, which say whether packets arrived whole.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};

use super::Netns;

impl Netns {
    /// A counter of /proc/net/snmp, such as ("Tcp", "InCsumErrors").
    ///
    /// # Errors
    /// There is no such counter.
    pub fn snmp(&self, group: &str, name: &str) -> Result<u64> {
        let text = self.run("cat", &["/proc/net/snmp"])?;
        let prefix = format!("{group}:");
        let mut lines = text.lines().filter(|line| line.starts_with(&prefix));
        let (names, values) = (lines.next(), lines.next());
        names
            .zip(values)
            .and_then(|(names, values)| {
                let column = names.split_whitespace().position(|word| word == name)?;
                values.split_whitespace().nth(column)?.parse().ok()
            })
            .with_context(|| format!("no {group} {name} in /proc/net/snmp"))
    }

    /// `ethtool -S LINK`.
    ///
    /// # Errors
    /// The driver has no statistics.
    pub fn ethtool(&self, link: &str) -> Result<BTreeMap<String, u64>> {
        let text = self.run("ethtool", &["-S", link])?;
        Ok(text
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .filter_map(|(name, value)| Some((name.to_owned(), value.parse().ok()?)))
            .collect())
    }

    /// What the kernel dropped here, for the words of an error: full receive buffers, datagrams that
    /// never became whole, full queues of links.
    pub fn losses(&self) -> String {
        let counters = [
            ("Udp", "InErrors"),
            ("Udp", "RcvbufErrors"),
            ("Ip", "ReasmFails"),
            ("Ip", "InDiscards"),
            ("Ip", "OutDiscards"),
        ];
        let own = counters.into_iter().filter_map(|(group, name)| {
            let count = self.snmp(group, name).ok().filter(|count| *count != 0)?;
            Some(format!(" {group}.{name}={count}"))
        });
        let links = self.ip("-br link").unwrap_or_default();
        let names = links.lines().filter_map(|line| line.split(['@', ' ']).next());
        let links: Vec<&str> = names.filter(|name| *name != "lo").collect();
        let dropped = links.iter().flat_map(|link| {
            let counts = self.ethtool(link).unwrap_or_default();
            counts
                .into_iter()
                .filter(|(name, count)| {
                    *count != 0 && (name.contains("drop") || name.contains("err"))
                })
                .map(move |(name, count)| format!(" {link}.{name}={count}"))
        });
        format!("{}:{}", self.name(), own.chain(dropped).collect::<String>())
    }

    /// Fails if any packet arrived here with a wrong checksum.
    ///
    /// # Errors
    /// One did.
    pub fn check_checksums(&self) -> Result<()> {
        for group in ["Tcp", "Udp", "Icmp"] {
            let errors = self.snmp(group, "InCsumErrors")?;
            ensure!(errors == 0, "{}: {errors} packets with a wrong {group} checksum", self.name());
        }
        Ok(())
    }

    /// Fails if XDP could not send something on this link.
    ///
    /// # Errors
    /// It could not.
    pub fn check_xdp_errors(&self, link: &str) -> Result<()> {
        for (name, count) in self.ethtool(link)? {
            let failed = name.ends_with("xdp_tx_errors") || name.ends_with("xdp_xmit_errors");
            ensure!(!failed || count == 0, "{} {link}: {name} = {count}", self.name());
        }
        Ok(())
    }
}
