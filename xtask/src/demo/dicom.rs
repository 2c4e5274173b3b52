//! DICOM software: dcmtk's storescp, storescu and echoscu; images and their pixels by pydicom.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use tests::lab::{Netns, Process, run, wait_for};

use crate::workspace;

/// pydicom's own sample files: a CT and two MR images, uncompressed.
const SAMPLES: [&str; 3] = ["CT_small.dcm", "MR_small.dcm", "examples_overlay.dcm"];

/// How long dcmtk waits for TCP, ACSE and DIMSE, in seconds: for a machine that is busy.
const PATIENCE: [&str; 6] = ["-to", "30", "-ta", "30", "-td", "30"];

/// One line for each image: SOP instance UID, modality, SHA-256 of the pixel data, path.
const DESCRIBE: &str = r#"
import hashlib, os, sys, pydicom
for path in sys.argv[1:]:
    names = [path] if os.path.isfile(path) else [os.path.join(path, n) for n in os.listdir(path)]
    for name in names:
        image = pydicom.dcmread(name)
        digest = hashlib.sha256(image.PixelData).hexdigest()
        print(image.SOPInstanceUID, image.Modality, digest, name)
"#;

/// A DICOM image, by what must survive the journey.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Image {
    /// SOP instance UID.
    pub uid: String,
    /// CT, MR, ….
    pub modality: String,
    /// SHA-256 of the pixel data.
    pub pixels: String,
}

fn python() -> PathBuf {
    workspace::venv().join("bin/python3")
}

/// Paths of the sample files.
///
/// # Errors
/// pydicom is not there, or its wheel has no such file.
pub fn samples() -> Result<Vec<PathBuf>> {
    let script = "import pydicom, os; print(os.path.dirname(pydicom.__file__))";
    let package = run(python(), &["-c", script]).context("pydicom: `cargo xtask setup`")?;
    let directory = Path::new(package.trim()).join("data/test_files");
    let paths: Vec<PathBuf> = SAMPLES.iter().map(|name| directory.join(name)).collect();
    for path in &paths {
        ensure!(path.exists(), "pydicom has no {}", path.display());
    }
    Ok(paths)
}

/// Reads images from files and directories, sorted.
///
/// # Errors
/// One is not a readable DICOM image.
pub fn describe(paths: &[PathBuf]) -> Result<Vec<Image>> {
    let mut arguments = vec!["-W", "ignore", "-c", DESCRIBE];
    let shown: Vec<String> = paths.iter().map(|path| path.display().to_string()).collect();
    arguments.extend(shown.iter().map(String::as_str));
    let text = run(python(), &arguments)?;
    let mut images = Vec::new();
    for line in text.lines() {
        let mut words = line.split_whitespace().map(str::to_owned);
        let (Some(uid), Some(modality), Some(pixels)) = (words.next(), words.next(), words.next())
        else {
            bail!("pydicom said: {line}")
        };
        images.push(Image { uid, modality, pixels });
    }
    images.sort();
    Ok(images)
}

/// A storescp in a server's namespace.
#[derive(Debug)]
pub struct Archive {
    /// PACS1, PACS2.
    pub name: String,
    /// Where it stores what it receives.
    pub directory: PathBuf,
    /// The process.
    pub process: Process,
}

impl Archive {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// It ends, or does not listen.
    pub fn start(netns: &Netns, name: &str, directory: PathBuf, port: u16) -> Result<Self> {
        fs::create_dir_all(&directory)?;
        let (place, port) = (directory.display().to_string(), port.to_string());
        let arguments = ["-v", "-dhl", "-aet", name, "--fork", "+uf", "-od", &place, &port];
        let mut process = netns.spawn(name, "storescp", &arguments)?;
        wait_for(&format!("storescp on {name}"), Duration::from_secs(10), || {
            ensure!(process.running(), "it ended: {}", process.log());
            let listening = netns.run("ss", &["-Hltn", &format!("sport = :{port}")])?;
            Ok((!listening.trim().is_empty()).then_some(()))
        })?;
        Ok(Self { name: name.to_owned(), directory, process })
    }

    /// How many files it has received.
    ///
    /// # Errors
    /// Its directory cannot be read.
    pub fn received(&self) -> Result<usize> {
        Ok(fs::read_dir(&self.directory)?.count())
    }
}

/// `echoscu` in this namespace; how long it took.
///
/// # Errors
/// It fails: its words are in the error.
pub fn echo(client: &Netns, peer: &str, port: u16) -> Result<Duration> {
    let started = Instant::now();
    let port = port.to_string();
    client.run("echoscu", &[&["-v"], &PATIENCE[..], &["-aec", "PACS", peer, &port]].concat())?;
    Ok(started.elapsed())
}

/// `storescu` of these files in one association; how long it took.
///
/// # Errors
/// It fails: its words are in the error.
pub fn store(client: &Netns, peer: &str, port: u16, files: &[PathBuf]) -> Result<Duration> {
    let started = Instant::now();
    let port = port.to_string();
    let mut arguments = [&["-R"], &PATIENCE[..], &["-aec", "PACS", peer, &port]].concat();
    let shown: Vec<String> = files.iter().map(|path| path.display().to_string()).collect();
    arguments.extend(shown.iter().map(String::as_str));
    client.run("storescu", &arguments)?;
    Ok(started.elapsed())
}
