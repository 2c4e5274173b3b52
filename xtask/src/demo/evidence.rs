//! What is kept of a demonstration that failed, and captures for whoever asks for them.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use tests::lab::{Medlb, Netns, Process, Site, wait_for};

use crate::workspace;

/// What medlb is asked after a failure.
const QUESTIONS: [&str; 4] = ["status", "stats", "connections", "doctor"];

/// Where it goes: a directory for each mode, made anew.
#[derive(Debug)]
pub struct Evidence {
    directory: PathBuf,
    captures: Vec<Process>,
}

impl Evidence {
    /// For the mode with this name.
    ///
    /// # Errors
    /// What an earlier run left there cannot be removed.
    pub fn new(mode: &str) -> Result<Self> {
        let directory = workspace::target().join("demo").join(mode);
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("cannot remove {}", directory.display()))?;
        }
        Ok(Self { directory, captures: Vec::new() })
    }

    /// Captures what medlb's neighbours get and send, until this is dropped: frames that an XDP
    /// program sends or redirects are not seen on medlb's own interfaces.
    ///
    /// # Errors
    /// `tcpdump` is not there, or does not start.
    pub fn capture(&mut self, site: &Site) -> Result<()> {
        fs::create_dir_all(&self.directory)?;
        for port in site.ports() {
            let file = self.directory.join(format!("{port}.pcap")).display().to_string();
            let mut tcpdump = record(site.switch(), port, &file)?;
            wait_for(&format!("tcpdump on {port}"), Duration::from_secs(30), || {
                ensure!(
                    tcpdump.running(),
                    "tcpdump ended (`apt-get install tcpdump`?): {}",
                    tcpdump.log()
                );
                Ok(tcpdump.log().contains("listening on").then_some(()))
            })?;
            self.captures.push(tcpdump);
        }
        Ok(())
    }

    /// Where the captures are; none when there are no captures.
    pub fn captured(&self) -> Option<&Path> {
        (!self.captures.is_empty()).then_some(self.directory.as_path())
    }

    /// Writes down what medlb says and what all programs have logged, and returns where.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn keep(&self, medlb: &Medlb, site: &Site, what: &anyhow::Error) -> Result<&Path> {
        fs::create_dir_all(&self.directory)?;
        fs::write(self.directory.join("error.txt"), format!("{what:#}\n"))?;
        for question in QUESTIONS {
            let answer = medlb.ask(&[question, "--color", "never"]);
            let text = answer.unwrap_or_else(|error| format!("{error:#}\n"));
            fs::write(self.directory.join(format!("medlb-{question}.txt")), text)?;
        }
        for (name, netns) in site.all() {
            let script = "ip -s address; ip neigh; ip route; ss -tanoi; nstat -asz";
            let text = netns.run("sh", &["-c", script]).unwrap_or_else(|error| error.to_string());
            fs::write(self.directory.join(format!("kernel-{name}.txt")), text)?;
        }
        // Logs, medlb.yaml; the images are of no use here.
        for entry in fs::read_dir(site.lab.directory())? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                fs::copy(entry.path(), self.directory.join(entry.file_name()))?;
            }
        }
        Ok(&self.directory)
    }
}

fn record(netns: &Netns, port: &str, file: &str) -> Result<Process> {
    // -Z root: Debian's tcpdump gives its rights up, and could not write the file. -U: at once.
    let arguments = ["-Z", "root", "-U", "-n", "-s", "200", "-i", port, "-w", file];
    netns.spawn(&format!("tcpdump-{port}"), "tcpdump", &arguments)
}
