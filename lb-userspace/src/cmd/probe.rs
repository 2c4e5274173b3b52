//! `medlb probe TYPE HOST:PORT`: one check by hand, without a daemon.

use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::config::model::{CheckKind, HealthCheck, MllpMessage, OnBusy, Tls};
use crate::health::probe::{self, Request, dial::Dialer};
use crate::health::{Outcome, ProbeResult};

/// Arguments of `medlb probe`.
#[derive(Args, Clone, Debug)]
pub struct ProbeArgs {
    /// What to speak
    #[arg(value_enum, value_name = "TYPE")]
    kind: Kind,
    /// The server: HOST:PORT, or HOST for ping and for the protocol's usual port
    #[arg(value_name = "HOST:PORT")]
    target: String,
    /// dicom-echo: our AE title
    #[arg(long, default_value = "MEDLB", value_name = "AE")]
    calling_ae: String,
    /// dicom-echo: the server's AE title
    #[arg(long, default_value = "ANY-SCP", value_name = "AE")]
    called_ae: String,
    /// dicom-echo: an accepted association is enough, no echo is sent
    #[arg(long)]
    association: bool,
    /// Speak TLS (dicom-echo, mllp; https and ldaps always do)
    #[arg(long)]
    tls: bool,
    /// Do not verify the server's certificate
    #[arg(long)]
    insecure: bool,
    /// CA certificates to verify with (PEM); the system's if left out
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Client certificate (PEM)
    #[arg(long, value_name = "FILE", requires = "client_key")]
    client_cert: Option<PathBuf>,
    /// Key of the client certificate (PEM, mode 0600)
    #[arg(long, value_name = "FILE", requires = "client_cert")]
    client_key: Option<PathBuf>,
    /// Name that the certificate must be valid for
    #[arg(long, value_name = "NAME")]
    server_name: Option<String>,
    /// mllp: send a query and wait for its ACK, not only hold the connection
    #[arg(long)]
    message: bool,
    /// mllp: send this file's message instead of the built-in query
    #[arg(long, value_name = "FILE")]
    message_file: Option<PathBuf>,
    /// mllp: AA alone passes
    #[arg(long)]
    expect_aa: bool,
    /// http, https: request target
    #[arg(long, default_value = "/")]
    path: String,
    /// http, https: method
    #[arg(long, default_value = "GET")]
    method: String,
    /// http, https: Host header
    #[arg(long)]
    host: Option<String>,
    /// http, https: accepted status codes, such as 200-399 or 200,401
    #[arg(long, default_value = "200-399", value_parser = status)]
    status: StatusCodes,
    /// http, https: regular expression for the first 64 KiB of the body
    #[arg(long, value_name = "REGEX")]
    body: Option<String>,
    /// ldap, ldaps: name to bind as; anonymous if left out
    #[arg(long, default_value = "", value_name = "DN", hide_default_value = true)]
    bind_dn: String,
    /// ldap, ldaps: file with the password (mode 0600)
    #[arg(long, value_name = "FILE")]
    password_file: Option<PathBuf>,
    /// ldap, ldaps: entry that must be found
    #[arg(long, value_name = "DN")]
    base: Option<String>,
    /// ping: how many requests; one reply passes
    #[arg(long, default_value_t = 3)]
    count: u32,
    /// external: the script, with arguments of its own
    #[arg(long, value_name = "COMMAND", num_args = 1..)]
    command: Vec<String>,
    /// external: user to run it as
    #[arg(long, default_value = "nobody")]
    user: String,
    /// Time for the whole exchange: 3s, 500ms, or seconds
    #[arg(long, default_value = "3s", value_parser = duration)]
    timeout: Duration,
    /// Source address
    #[arg(long, value_name = "ADDRESS")]
    source: Option<IpAddr>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The `type` of a check.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Kind {
    Connect,
    DicomEcho,
    Mllp,
    Http,
    Https,
    Ldap,
    Ldaps,
    Mssql,
    Ping,
    External,
}

impl Kind {
    fn usual_port(self) -> Option<u16> {
        match self {
            Kind::DicomEcho => Some(104),
            Kind::Mllp => Some(2575),
            Kind::Http => Some(80),
            Kind::Https => Some(443),
            Kind::Ldap => Some(389),
            Kind::Ldaps => Some(636),
            Kind::Mssql => Some(1433),
            Kind::Ping | Kind::External => Some(0),
            Kind::Connect => None,
        }
    }
}

type StatusCodes = Vec<RangeInclusive<u16>>;

/// Runs the check. Exit code 0 when it passes, also when the server is busy; 1 otherwise.
pub async fn run(args: ProbeArgs) -> ExitCode {
    match probe(&args).await {
        Ok(outcome) => {
            print(&args, &outcome);
            ExitCode::from(u8::from(outcome.result == ProbeResult::Fail))
        }
        Err(error) => {
            eprintln!("medlb probe: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn probe(args: &ProbeArgs) -> Result<Outcome, String> {
    let address = resolve(args).await?;
    let check = HealthCheck {
        name: None,
        kind: kind(args)?,
        interval: args.timeout,
        timeout: args.timeout,
        rise: 1,
        fall: 1,
        port: None,
        via_rip: true,
    };
    let request = Request {
        service: "probe".into(),
        real: args.target.clone(),
        rip: address.ip(),
        port: address.port(),
        vip: address.ip(),
        vip_port: address.port(),
        rpt: address.port(),
        dialer: Dialer { mark: None, source: args.source },
        look: Default::default(),
    };
    Ok(probe::run(&request, &check).await)
}

fn kind(args: &ProbeArgs) -> Result<CheckKind, String> {
    let named = Tls {
        verify: !args.insecure,
        ca_file: args.ca_file.clone(),
        client: args.client_cert.clone().zip(args.client_key.clone()),
        server_name: args.server_name.clone(),
    };
    let always_tls = matches!(args.kind, Kind::Https | Kind::Ldaps);
    let tls = (args.tls || always_tls).then_some(named);
    Ok(match args.kind {
        Kind::Connect => CheckKind::Connect,
        Kind::DicomEcho => CheckKind::DicomEcho {
            calling_ae: ae_title("--calling-ae", &args.calling_ae)?,
            called_ae: ae_title("--called-ae", &args.called_ae)?,
            tls,
            on_busy: OnBusy::Up,
            accept_association: args.association,
        },
        Kind::Mllp => CheckKind::Mllp { message: message(args)?, tls },
        Kind::Http | Kind::Https => CheckKind::Http {
            tls,
            path: args.path.clone(),
            method: args.method.clone(),
            host: args.host.clone(),
            status: args.status.clone(),
            body: args.body.clone(),
        },
        Kind::Ldap | Kind::Ldaps => CheckKind::Ldap {
            tls,
            bind_dn: args.bind_dn.clone(),
            password_file: args.password_file.clone(),
            base: args.base.clone(),
        },
        Kind::Mssql => CheckKind::Mssql { prelogin: true },
        Kind::Ping => CheckKind::Ping { count: args.count },
        Kind::External if args.command.is_empty() => {
            return Err("external needs the script: --command /path/to/script".into());
        }
        Kind::External => {
            CheckKind::External { command: args.command.clone(), user: args.user.clone() }
        }
    })
}

fn ae_title(option: &str, title: &str) -> Result<String, String> {
    let good = (1..=16).contains(&title.len())
        && title.bytes().all(|b| (0x20..0x7F).contains(&b) && b != b'\\')
        && !title.trim().is_empty();
    let wrong =
        || format!("{option}: an AE title has 1 to 16 ASCII characters without a backslash");
    good.then(|| title.to_owned()).ok_or_else(wrong)
}

fn message(args: &ProbeArgs) -> Result<Option<MllpMessage>, String> {
    let expect_aa = args.expect_aa;
    if let Some(file) = &args.message_file {
        let text = std::fs::read_to_string(file)
            .map_err(|e| format!("cannot read {}: {e}", file.display()))?;
        return Ok(Some(MllpMessage { text: Some(text), expect_aa }));
    }
    Ok((args.message || expect_aa).then_some(MllpMessage { text: None, expect_aa }))
}

/// The first address of the target, with the port given or the protocol's own.
async fn resolve(args: &ProbeArgs) -> Result<SocketAddr, String> {
    let target = args.target.as_str();
    if let Ok(address) = target.parse::<SocketAddr>() {
        return Ok(address);
    }
    let bare = target.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(target);
    let (host, port) = match (bare.parse::<IpAddr>(), bare.rsplit_once(':')) {
        (Err(_), Some((host, port))) => {
            let port = port.parse().map_err(|_| format!("\"{port}\" is not a port"))?;
            (host, Some(port))
        }
        _ => (bare, args.kind.usual_port()),
    };
    let port = port.ok_or_else(|| format!("give a port: {target}:104"))?;
    let found = tokio::net::lookup_host((host, port)).await;
    let found = found.map_err(|e| format!("cannot find {host}: {e}"))?.next();
    found.ok_or_else(|| format!("{host} has no address"))
}

fn print(args: &ProbeArgs, outcome: &Outcome) {
    let result = match outcome.result {
        ProbeResult::Pass => "pass",
        ProbeResult::Busy => "busy",
        ProbeResult::Fail => "fail",
    };
    let milliseconds = outcome.duration.as_secs_f64() * 1000.0;
    let line = if args.json {
        serde_json::json!({
            "at": humantime::format_rfc3339_seconds(outcome.at).to_string(),
            "result": result,
            "phase": outcome.phase,
            "detail": outcome.detail,
            "duration_ms": (milliseconds * 1000.0).round() / 1000.0,
        })
        .to_string()
    } else {
        format!("{result}  {}: {}  ({milliseconds:.1} ms)", outcome.phase, outcome.detail)
    };
    // A reader that has gone away is not an error.
    writeln!(std::io::stdout(), "{line}").ok();
}

fn duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("\"{text}\" is not a time: write 3s, 500ms or 3");
    let found = match text.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).map_err(|_| wrong())?,
        Err(_) => humantime::parse_duration(text).map_err(|_| wrong())?,
    };
    if found.is_zero() { Err("a time-out of 0 lets nothing pass".into()) } else { Ok(found) }
}

fn status(text: &str) -> Result<StatusCodes, String> {
    let wrong = || format!("\"{text}\" is no list of status codes: write 200-399 or 200,401");
    let code = |part: &str| part.trim().parse::<u16>().ok().filter(|c| (100..=599).contains(c));
    text.split(',')
        .map(|part| {
            let (from, to) = part.split_once('-').unwrap_or((part, part));
            let range = code(from)?..=code(to)?;
            (!range.is_empty()).then_some(range)
        })
        .collect::<Option<_>>()
        .ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::probe::testing::{Peer, free_port};
    use clap::{CommandFactory, FromArgMatches, Parser};

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        probe: ProbeArgs,
    }

    fn parse(line: &str) -> Result<ProbeArgs, String> {
        let found = Cli::try_parse_from(line.split_whitespace());
        found.map(|cli| cli.probe).map_err(|e| e.to_string())
    }

    #[test]
    fn the_arguments_are_consistent() {
        Cli::command().debug_assert();
        let matches = Cli::command().get_matches_from("probe connect a:1".split(' '));
        assert!(Cli::from_arg_matches(&matches).is_ok());
    }

    #[test]
    fn bad_arguments_are_refused_in_words() {
        for (line, words) in [
            ("probe dicom a:1", "dicom-echo"),
            ("probe connect a:1 --timeout 0", "lets nothing pass"),
            ("probe connect a:1 --timeout soon", "500ms"),
            ("probe http a:1 --status 999", "200-399"),
            ("probe http a:1 --status 300-200", "200-399"),
        ] {
            let error = parse(line).unwrap_err();
            assert!(error.contains(words), "{line}: {error}");
        }
        let long = parse("probe dicom-echo a:1 --called-ae SEVENTEEN_LETTERS").unwrap();
        assert!(kind(&long).unwrap_err().contains("1 to 16"));
    }

    #[tokio::test]
    async fn hosts_ports_and_addresses_are_understood() {
        for (line, expected) in [
            ("probe dicom-echo 127.0.0.1:11112", "127.0.0.1:11112"),
            ("probe dicom-echo 127.0.0.1", "127.0.0.1:104"),
            ("probe https ::1", "[::1]:443"),
            ("probe ldaps [::1]", "[::1]:636"),
            ("probe connect [::1]:80", "[::1]:80"),
        ] {
            let found = resolve(&parse(line).unwrap()).await;
            assert_eq!(found.unwrap().to_string(), expected, "{line}");
        }
        let missing = resolve(&parse("probe connect 127.0.0.1").unwrap()).await;
        assert!(missing.unwrap_err().contains("give a port"));
    }

    #[tokio::test]
    async fn a_check_by_hand_finds_what_the_daemon_would() {
        let peer = Peer::python("dicom_peer.py", &[]);
        let at = format!("probe dicom-echo 127.0.0.1:{} --called-ae", peer.port);
        for (called, expected) in [
            ("ECHO", ProbeResult::Pass),
            ("RJ_2_3_2", ProbeResult::Busy),
            ("RJ_1_1_7", ProbeResult::Fail),
        ] {
            let found = probe(&parse(&format!("{at} {called}")).unwrap()).await.unwrap();
            assert_eq!(found.result, expected, "{found:?}");
        }
        let closed = format!("probe connect 127.0.0.1:{}", free_port());
        assert_eq!(run(parse(&closed).unwrap()).await, ExitCode::FAILURE);
        let open = format!("probe connect 127.0.0.1:{}", peer.port);
        assert_eq!(run(parse(&open).unwrap()).await, ExitCode::SUCCESS);
    }
}
