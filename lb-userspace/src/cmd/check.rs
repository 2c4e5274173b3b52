//! `medlb check`: is the file right? Says everything that is wrong with it, and touches nothing.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use crate::config::{self, ConfigErrors, Loaded, Problem, host};

/// EX_CONFIG of sysexits.h.
const INVALID: u8 = 78;

/// Arguments of `medlb check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// The configuration file
    #[arg(long, short, value_name = "FILE")]
    pub config: PathBuf,
    /// JSON on standard output
    #[arg(long)]
    pub json: bool,
}

/// Checks the file. Exit code 0: it can be used (there may be warnings); 78: it cannot.
pub fn run(args: &CheckArgs) -> ExitCode {
    let (out, err) = (&mut io::stdout().lock(), &mut io::stderr().lock());
    // A reader that went away has read enough.
    let valid = check(args, out, err).unwrap_or_else(|(valid, _)| valid);
    if valid { ExitCode::SUCCESS } else { ExitCode::from(INVALID) }
}

/// Writes the verdict; whether the file is valid is known also where writing fails.
fn check(
    args: &CheckArgs,
    out: &mut impl Write,
    err: &mut impl Write,
) -> Result<bool, (bool, io::Error)> {
    let result = config::load(&args.config).and_then(judged_here);
    let valid = result.is_ok();
    let written = match result {
        Ok((loaded, warnings)) => report_valid(args, &loaded, &warnings, out),
        Err(errors) if args.json => {
            let report = json!({
                "file": args.config, "ok": false,
                "errors": errors.errors, "warnings": errors.warnings,
            });
            writeln!(out, "{report:#}")
        }
        Err(errors) => errors
            .errors
            .iter()
            .map(|error| ("error", error))
            .chain(errors.warnings.iter().map(|warning| ("warning", warning)))
            .try_for_each(|(kind, problem)| writeln!(err, "{}", line(&args.config, kind, problem)))
            .and_then(|()| {
                let count = plural(errors.errors.len(), "error");
                writeln!(err, "{}: not valid: {count}", args.config.display())
            }),
    };
    written.map(|()| valid).map_err(|error| (valid, error))
}

/// Adds what this machine lacks to run the file. That is a warning, since the file may be meant for
/// another machine; but where all its interfaces are here, so are the networks to judge a source
/// address by.
fn judged_here(loaded: Loaded) -> Result<(Loaded, Vec<Problem>), ConfigErrors> {
    let config = &loaded.config;
    let mut errors = Vec::new();
    if host::check_interfaces(config).is_empty() {
        errors = host::check_sources(config);
    }
    let mut here = host::check_host(config);
    here.retain(|problem| !errors.contains(problem));
    here.extend(host::check_files(config));
    loaded.locate(&mut here);
    loaded.locate(&mut errors);
    let mut warnings = loaded.warnings.clone();
    warnings.extend(here);
    warnings.sort_by_key(|warning| warning.line);
    if errors.is_empty() { Ok((loaded, warnings)) } else { Err(ConfigErrors { errors, warnings }) }
}

fn report_valid(
    args: &CheckArgs,
    loaded: &Loaded,
    warnings: &[Problem],
    out: &mut impl Write,
) -> io::Result<()> {
    let services = loaded.config.services.len();
    let servers = loaded.config.services.iter().map(|s| s.real_servers.len()).sum();
    if args.json {
        let report = json!({
            "file": args.config, "ok": true, "services": services, "real_servers": servers,
            "config_hash": loaded.config.hash, "errors": [], "warnings": warnings,
        });
        return writeln!(out, "{report:#}");
    }
    for warning in warnings {
        writeln!(out, "{}", line(&args.config, "warning", warning))?;
    }
    let (services, servers) = (plural(services, "service"), plural(servers, "real server"));
    let file = args.config.display();
    match warnings.len() {
        0 => writeln!(out, "{file}: ok: {services}, {servers}"),
        n => writeln!(out, "{file}: ok: {services}, {servers}, {}", plural(n, "warning")),
    }
}

/// `FILE:LINE: error: PATH: MESSAGE`, as compilers write it.
fn line(file: &Path, kind: &str, problem: &Problem) -> String {
    let mut line = file.display().to_string();
    if let Some(number) = problem.line {
        line.push_str(&format!(":{number}"));
    }
    line.push_str(&format!(": {kind}: "));
    if !problem.path.is_empty() {
        line.push_str(&format!("{}: ", problem.path));
    }
    line + &problem.message
}

fn plural(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run_on(text: &str, json: bool) -> (bool, String, String) {
        let dir = std::env::temp_dir().join(format!("medlb-check-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let config = dir.join(format!("{:x}.yaml", text.len() * 2 + usize::from(json)));
        std::fs::write(&config, text).unwrap();
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let args = CheckArgs { config: config.clone(), json };
        let valid = check(&args, &mut out, &mut err).unwrap();
        std::fs::remove_file(&config).unwrap();
        let text = |bytes| {
            String::from_utf8(bytes).unwrap().replace(&config.display().to_string(), "FILE")
        };
        (valid, text(out), text(err))
    }

    const GOOD: &str = "
interfaces: [lo]
virtual_services:
  - label: A
    address: 10.0.0.1
    ports: 104
    forwarding_method: dr
    real_servers: [{label: R1, address: 10.0.0.2}, {label: R2, address: 10.0.0.3}]
";

    #[test]
    fn a_good_file_is_summed_up_in_one_line() {
        let (valid, out, err) = run_on(GOOD, false);
        assert!(valid);
        assert_eq!((out.as_str(), err.as_str()), ("FILE: ok: 1 service, 2 real servers\n", ""));
    }

    #[test]
    fn a_missing_interface_is_a_warning_with_its_line() {
        let (valid, out, _) = run_on(&GOOD.replace("[lo]", "\n  - nosuchdev0"), false);
        assert!(valid);
        let mut lines = out.lines();
        assert_eq!(
            lines.next().unwrap(),
            "FILE:3: warning: interfaces[0]: there is no network device `nosuchdev0` here"
        );
        assert_eq!(lines.next().unwrap(), "FILE: ok: 1 service, 2 real servers, 1 warning");
    }

    #[test]
    fn a_source_address_is_judged_where_the_interfaces_are() {
        let keys = "forwarding_method: snat\n    source_address: 203.0.113.7";
        let snat = GOOD.replace("forwarding_method: dr", keys);
        let (valid, _, err) = run_on(&snat, false);
        assert!(!valid);
        let want =
            "FILE:8: error: virtual_services[0].source_address: 203.0.113.7 is in no network of lo";
        assert!(err.starts_with(want), "{err}");
        let (valid, out, _) = run_on(&snat.replace("[lo]", "[lo, nosuchdev0]"), false);
        assert!(valid);
        assert!(out.contains("FILE:8: warning: virtual_services[0].source_address"), "{out}");
        let (valid, _, err) = run_on(&snat.replace("203.0.113.7", "10.0.0.1"), false);
        assert!(valid, "the vip itself is put on the interface: {err}");
    }

    #[test]
    fn every_error_of_a_bad_file_has_a_line() {
        let bad = GOOD.replace("104", "0").replace("10.0.0.2", "10.0.0.1");
        let (valid, out, err) = run_on(&bad, false);
        assert!(!valid && out.is_empty(), "{out}");
        assert!(err.contains("FILE:6: error: virtual_services[0].ports: `0` is out of"), "{err}");
        assert!(
            err.contains("FILE:8: error: virtual_services[0].real_servers[0].address"),
            "{err}"
        );
        assert!(err.ends_with("FILE: not valid: 2 errors\n"), "{err}");
    }

    #[test]
    fn json_says_the_same() {
        let (valid, out, _) = run_on(GOOD, true);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(valid);
        assert_eq!(report["ok"], true);
        assert_eq!((&report["services"], &report["real_servers"]), (&json!(1), &json!(2)));
        let (valid, out, _) = run_on(&GOOD.replace("ports", "portz"), true);
        let report: serde_json::Value = serde_json::from_str(&out).unwrap();
        assert!(!valid);
        assert_eq!(report["ok"], false);
        assert_eq!(report["errors"].as_array().unwrap().len(), 2);
        assert_eq!(report["errors"][1]["path"], "virtual_services[0].portz");
        assert_eq!(report["errors"][1]["line"], 6);
    }

    #[test]
    fn a_file_that_does_not_exist_says_so() {
        let args = CheckArgs { config: "/nonexistent/medlb.yaml".into(), json: false };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        assert!(!check(&args, &mut out, &mut err).unwrap());
        let err = String::from_utf8(err).unwrap();
        assert!(err.contains("cannot read the file: No such file or directory"), "{err}");
    }
}
