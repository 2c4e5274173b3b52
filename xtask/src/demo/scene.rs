//! One forwarding method, from the first echo to teardown.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use tests::lab::{Arms, Medlb, Method, Site, find, wait_for};

use super::dicom::{self, Archive, Image};
use super::evidence::Evidence;
use super::screen::Screen;

const LABEL: &str = "DICOM";
/// The port that modalities know, and that of storescp where medlb may translate.
const PORT: u16 = 104;
const TRANSLATED: u16 = 11112;
/// Each sends all sample files.
const ASSOCIATIONS: usize = 4;
/// Interval 1 s, fall 2, and what a very busy machine adds; how long it took is shown.
const DETECTION: Duration = Duration::from_secs(30);

/// A running demonstration.
#[derive(Debug)]
pub struct Scene<'a> {
    screen: &'a Screen,
    files: Vec<PathBuf>,
    images: Vec<Image>,
    medlb: Medlb,
    archives: Vec<Archive>,
    vip: String,
    evidence: Evidence,
    site: Site,
}

impl<'a> Scene<'a> {
    /// Builds the network, starts two archives and medlb.
    ///
    /// # Errors
    /// Something does not start.
    pub fn open(screen: &'a Screen, method: Method, arms: Arms, capture: bool) -> Result<Self> {
        let files = dicom::samples()?;
        let images = dicom::describe(&files)?;
        let site = Site::build(method, arms, 2)?;
        let mut evidence = Evidence::new(method.name())?;
        if capture {
            evidence.capture(&site)?;
        }
        let port = if method == Method::Dr { PORT } else { TRANSLATED };
        let mut archives = Vec::new();
        for (number, server) in site.servers.iter().enumerate() {
            let name = format!("PACS{}", number + 1);
            let directory = site.lab.directory().join(&name);
            archives.push(Archive::start(server, &name, directory, port)?);
        }
        let medlb = Medlb::start(&site, &site.config(&service(&site)))?;
        let vip = site.vip.to_string();
        Ok(Self { screen, files, images, medlb, archives, vip, evidence, site })
    }

    /// All that is shown, in order. What there is to know about a failure is kept in files.
    ///
    /// # Errors
    /// Something did not happen; the message says where the files are.
    pub fn play(&mut self) -> Result<()> {
        let played = self.acts();
        if let Some(place) = self.evidence.captured() {
            self.screen.line(&format!("  captures: {}", place.display()));
        }
        played.map_err(|error| match self.evidence.keep(&self.medlb, &self.site, &error) {
            Ok(place) => error.context(format!(
                "logs, counters and connections of this moment are in {}",
                place.display()
            )),
            Err(because) => error.context(format!("nothing could be kept ({because:#})")),
        })
    }

    fn acts(&mut self) -> Result<()> {
        self.ready()?;
        self.echo()?;
        self.images()?;
        self.death()?;
        self.figures()
    }

    /// Both archives come into rotation.
    fn ready(&self) -> Result<()> {
        let started = Instant::now();
        self.medlb.wait_health(LABEL, &["up", "up"])?;
        let status = self.medlb.status()?;
        let mode = status["interfaces"][0]["xdp_mode"].as_str().unwrap_or("?").to_owned();
        self.screen.observed(
            "medlb runs; both archives answered C-ECHO",
            &format!("{mode} XDP, ready in {:.1} s", started.elapsed().as_secs_f64()),
        );
        Ok(())
    }

    /// `echoscu` through the VIP.
    fn echo(&self) -> Result<()> {
        let took = dicom::echo(&self.site.client, &self.vip, PORT)?;
        let detail = format!("C-ECHO answered, {} ms", took.as_millis());
        self.screen.observed("echoscu through the VIP", &detail);
        Ok(())
    }

    /// `storescu` through the VIP; every image must arrive once for each time it was sent, with
    /// the same pixels, and both archives must have got some.
    fn images(&self) -> Result<()> {
        for _ in 0..ASSOCIATIONS {
            dicom::store(&self.site.client, &self.vip, PORT, &self.files)?;
        }
        let mut sent: Vec<Image> = Vec::new();
        for _ in 0..ASSOCIATIONS {
            sent.extend(self.images.iter().cloned());
        }
        sent.sort();
        let places: Vec<PathBuf> = self.archives.iter().map(|one| one.directory.clone()).collect();
        let arrived = dicom::describe(&places)?;
        ensure!(arrived == sent, "sent {} images, but {} arrived whole", sent.len(), arrived.len());
        let mut shares = Vec::new();
        for archive in &self.archives {
            let count = archive.received()?;
            ensure!(count > 0, "{} got nothing: no load was balanced", archive.name);
            shares.push(format!("{} {count}", archive.name));
        }
        let of = |modality: &str| sent.iter().filter(|image| image.modality == modality).count();
        self.screen.observed(
            &format!("storescu sent {} CT and {} MR images", of("CT"), of("MR")),
            &format!("arrived: {}; pixels identical (SHA-256)", shares.join(", ")),
        );
        Ok(())
    }

    /// Kills one archive; the next association must succeed on the other, at the first attempt.
    fn death(&mut self) -> Result<()> {
        let (victim, survivor) = (0, 1);
        let pid = self.archives[victim].process.pid();
        let killed = Instant::now();
        self.archives[victim].process.kill()?;
        let server = wait_for("medlb to notice the dead server", DETECTION, || {
            let server = self.server(victim)?;
            Ok((server["effective"] == "out").then_some(server))
        })?;
        let took = killed.elapsed();
        let name = self.archives[victim].name.clone();
        self.screen.observed(&format!("storescp on {name} killed"), &format!("process {pid}"));
        let check = &server["last_check"];
        let detail = check["detail"].as_str().context("the status has no last check")?;
        self.screen.observed(
            &format!("{name} out of rotation after {:.2} s", took.as_secs_f64()),
            &format!("checked each second, 2 failures; the last: {detail}"),
        );
        let before = self.archives[survivor].received()?;
        let took = dicom::store(&self.site.client, &self.vip, PORT, &self.files)
            .context("the association after the failure")?;
        let arrived = self.archives[survivor].received()? - before;
        let other = &self.archives[survivor].name;
        ensure!(arrived == self.files.len(), "{arrived} images arrived on {other}");
        self.screen.observed(
            "the next association succeeds, first attempt",
            &format!("{arrived} images on {other}, {} ms", took.as_millis()),
        );
        Ok(())
    }

    /// `medlb status` and `medlb stats`, after a look at whether they agree with what happened.
    fn figures(&self) -> Result<()> {
        let stats = self.medlb.stats()?;
        let service = find(&stats, LABEL).context("the service is not in the statistics")?;
        let total = service["connections_total"].as_u64().unwrap_or(0);
        let due = 1 + ASSOCIATIONS as u64 + 1; // one echo, the images, those after the failure
        ensure!(total == due, "{due} associations were made, medlb counted {total}");
        self.site.check_counters()?;
        self.screen.observed(
            "medlb counted every association",
            &format!("{total}; no packet with a wrong checksum anywhere"),
        );
        let colour = if self.screen.colours() { "always" } else { "never" };
        for command in ["status", "stats"] {
            let text = self.medlb.ask(&[command, "--color", colour])?;
            self.screen.quote(&format!("medlb {command}"), &text);
        }
        Ok(())
    }

    /// Stops medlb and takes the data plane away.
    ///
    /// # Errors
    /// Something stays.
    pub fn close(mut self) -> Result<()> {
        self.medlb.stop()?;
        self.medlb.teardown()?;
        for link in &self.site.links {
            let shown = self.site.lb.ip(&format!("-d link show dev {link}"))?;
            ensure!(!shown.contains("xdp"), "a program is still on {link}: {shown}");
        }
        ensure!(!self.site.lab.pins().exists(), "pins are left");
        println!();
        self.screen.observed("medlb teardown", "no program, pin or address is left");
        Ok(())
    }

    /// A real server in `status --json`.
    fn server(&self, number: usize) -> Result<Value> {
        let status = self.medlb.status()?;
        let service = find(&status, LABEL).context("the service is not in the status")?;
        Ok(service["real_servers"][number].clone())
    }
}

/// The service, as an operator would write it.
fn service(site: &Site) -> String {
    let mut yaml = format!(
        "  - label: {LABEL}\n    address: {}\n    ports: \"{PORT}\"\n    forwarding_method: {}\n",
        site.vip,
        site.method.name()
    );
    if site.method == Method::Snat {
        let _ = writeln!(yaml, "    source_address: {}", site.source_address());
    }
    yaml.push_str("    health_check: {type: dicom-echo, calling_ae: MEDLB, called_ae: PACS}\n");
    yaml.push_str("    real_servers:\n");
    let port = if site.method == Method::Dr { "" } else { ", port: 11112" };
    for (number, address) in site.addresses.iter().enumerate() {
        let _ = writeln!(yaml, "      - {{label: PACS{}, address: {address}{port}}}", number + 1);
    }
    yaml
}
