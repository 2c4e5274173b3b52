use clap::CommandFactory;

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_is_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn every_documented_command_is_there() {
    let lines = [
        "medlb run --config f",
        "medlb check --config f",
        "medlb schema",
        "medlb probe connect 127.0.0.1:104",
        "medlb reload",
        "medlb status --json",
        "medlb status --check",
        "medlb stats --watch --interval 2s",
        "medlb connections --service S --limit 5 --json",
        "medlb persistence",
        "medlb drain S R",
        "medlb drain S R --wait --timeout 10m",
        "medlb halt S R",
        "medlb online S R",
        "medlb doctor --config f",
        "medlb explain S R",
        "medlb check-now S R",
        "medlb teardown --config f",
    ];
    for line in lines {
        assert!(parse(line).is_ok(), "{line}");
    }
}

#[test]
fn global_options_stand_before_or_after_the_subcommand() {
    for line in ["medlb --socket /s status", "medlb status --socket /s", "medlb status --socket=/s"]
    {
        assert_eq!(parse(line).unwrap().global.socket, Some("/s".into()), "{line}");
    }
    assert_eq!(parse("medlb status --color never").unwrap().global.color, Color::Never);
    assert_eq!(parse("medlb --log-format json stats").unwrap().global.log_format, LogFormat::Json);
}

#[test]
fn a_wrong_command_line_is_exit_code_2_and_help_is_0() {
    for line in ["medlb", "medlb dance", "medlb drain S", "medlb run", "medlb status --nope"] {
        assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
    }
    assert_eq!(parse("medlb --help").unwrap_err().exit_code(), 0);
    assert_eq!(parse("medlb --version").unwrap_err().exit_code(), 0);
}
