//! One network namespace.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::process::{Process, output, run};

/// A namespace of a laboratory, which also takes it away.
#[derive(Clone, Debug)]
pub struct Netns {
    name: String,
    directory: PathBuf,
}

impl Netns {
    pub(super) fn create(name: String, directory: PathBuf) -> Result<Self> {
        let gate = super::cleanup::gate();
        run("ip", &["netns", "add", &name])?;
        drop(gate);
        let netns = Self { name, directory };
        netns.ip("link set lo up")?;
        for (key, value) in [
            ("ipv4/conf/all/rp_filter", 0),
            ("ipv4/conf/default/rp_filter", 0),
            ("ipv6/conf/all/accept_dad", 0),
            ("ipv6/conf/default/accept_dad", 0),
        ] {
            netns.sysctl(key, value)?;
        }
        // No name server is there to answer. Without these, a look-up (dcmtk makes one of the
        // machine's own name for each unique identifier) waits 5 s for a default route's gateway,
        // whose "net unreachable" is rate-limited.
        for family in ["-4", "-6"] {
            netns.ip(&format!("{family} rule add pref 1 ipproto udp dport 53 unreachable"))?;
        }
        Ok(netns)
    }

    /// Its name, as `ip netns` shows it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that stands for it.
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.name)
    }

    /// A command that will run in it. (`ip netns exec` would hide bpffs; nsenter changes the
    /// network alone, and its process becomes the program's.)
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg("--").arg(program);
        command
    }

    /// Runs a program to its end and returns its standard output.
    ///
    /// # Errors
    /// It fails.
    pub fn run(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Result<String> {
        output(self.command(program).args(arguments))
    }

    /// Runs `ip` with these words.
    ///
    /// # Errors
    /// It fails.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(["-n", &self.name]).args(words.split_whitespace());
        output(&mut command)
    }

    /// Starts a program; `name` names its log.
    ///
    /// # Errors
    /// It cannot be started.
    pub fn spawn(
        &self,
        name: &str,
        program: impl AsRef<std::ffi::OsStr>,
        arguments: &[&str],
    ) -> Result<Process> {
        let mut command = self.command(program);
        command.args(arguments);
        self.start(name, &mut command)
    }

    /// Starts a prepared command (from [`Netns::command`]).
    ///
    /// # Errors
    /// It cannot be started.
    pub fn start(&self, name: &str, command: &mut Command) -> Result<Process> {
        Process::start(name, command, self.directory.join(format!("{}-{name}.log", self.name)))
    }

    /// Sets `/proc/sys/net/KEY`.
    ///
    /// # Errors
    /// The kernel has no such setting.
    pub fn sysctl(&self, key: &str, value: i32) -> Result<()> {
        let script = format!("echo {value} > /proc/sys/net/{key}");
        self.run("sh", &["-c", &script]).map(drop).with_context(|| format!("net/{key} = {value}"))
    }

    /// Joins this namespace's `here` and `there`'s `port` by a veth pair, both up.
    ///
    /// # Errors
    /// `ip` fails.
    pub fn join(&self, here: &str, there: &Netns, port: &str) -> Result<()> {
        self.ip(&format!("link add {here} type veth peer name {port} netns {}", there.name))?;
        self.ip(&format!("link set {here} up"))?;
        there.ip(&format!("link set {port} up"))?;
        Ok(())
    }

    /// The hardware address of a link.
    ///
    /// # Errors
    /// There is no such link.
    pub fn mac(&self, link: &str) -> Result<String> {
        let text = self.ip(&format!("-o link show dev {link}"))?;
        let mut words = text.split_whitespace().skip_while(|word| *word != "link/ether").skip(1);
        words.next().map(Into::into).with_context(|| format!("no address in: {text}"))
    }
}
