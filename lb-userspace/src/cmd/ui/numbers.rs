//! Numbers for people. Programs get the exact ones by `--json`.

use std::time::Duration;

/// A count with thousands separated by a thin mark that no locale takes for a decimal: `1'234'567`
/// up to six digits, then `12.3M`.
pub fn count(n: u64) -> String {
    if n < 1_000_000 {
        grouped(n)
    } else {
        scaled(n as f64, 1000.0, &["", "k", "M", "G", "T", "P", "E"])
    }
}

/// Bytes: `812 B`, `4.1 MiB`.
pub fn bytes(n: u64) -> String {
    if n < 1024 {
        return format!("{n} B");
    }
    let text = scaled(n as f64, 1024.0, &["", " Ki", " Mi", " Gi", " Ti", " Pi", " Ei"]);
    format!("{text}B")
}

/// A rate per second: `0`, `0.4`, `12`, `1.2M`.
pub fn rate(per_second: f64) -> String {
    if per_second <= 0.0 || !per_second.is_finite() {
        "0".into()
    } else if per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        count(per_second.round() as u64)
    }
}

/// A time span by its two largest units: `3d4h`, `5m2s`, `850ms`.
pub fn age(span: Duration) -> String {
    let s = span.as_secs();
    let pair = |n: u64, unit: &str, rest: u64, small: &str| {
        if rest == 0 { format!("{n}{unit}") } else { format!("{n}{unit}{rest}{small}") }
    };
    match s {
        0 if span.is_zero() => "0s".into(),
        0 => format!("{}ms", span.as_millis()),
        1..60 => format!("{s}s"),
        60..3600 => pair(s / 60, "m", s % 60, "s"),
        3600..86400 => pair(s / 3600, "h", s % 3600 / 60, "m"),
        _ => pair(s / 86400, "d", s % 86400 / 3600, "h"),
    }
}

fn grouped(n: u64) -> String {
    if n < 10_000 {
        return n.to_string();
    }
    format!("{}'{:03}", n / 1000, n % 1000)
}

fn scaled(n: f64, base: f64, units: &[&str]) -> String {
    let (mut value, mut unit) = (n, 0);
    // 999.95 would be shown as 1000.0: it belongs to the next unit.
    while value >= base - 0.05 && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    format!("{value:.1}{}", units[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_exact_while_short_and_scaled_when_long() {
        let cases = [
            (0, "0"),
            (9_999, "9999"),
            (10_000, "10'000"),
            (999_999, "999'999"),
            (1_000_000, "1.0M"),
            (999_960_000, "1.0G"),
            (u64::MAX, "18.4E"),
        ];
        for (n, text) in cases {
            assert_eq!(count(n), text);
        }
    }

    #[test]
    fn bytes_are_binary() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1024), "1.0 KiB");
        assert_eq!(bytes(1_048_575), "1.0 MiB");
        assert_eq!(bytes(104_857_600), "100.0 MiB");
    }

    #[test]
    fn rates_below_ten_keep_a_decimal_and_nonsense_is_zero() {
        assert_eq!(rate(0.0), "0");
        assert_eq!(rate(-3.0), "0");
        assert_eq!(rate(f64::NAN), "0");
        assert_eq!(rate(0.44), "0.4");
        assert_eq!(rate(12.4), "12");
    }

    #[test]
    fn ages_have_at_most_two_units() {
        let cases = [(59, "59s"), (60, "1m"), (302, "5m2s"), (7440, "2h4m"), (273_600, "3d4h")];
        for (s, text) in cases {
            assert_eq!(age(Duration::from_secs(s)), text);
        }
        assert_eq!(age(Duration::from_millis(850)), "850ms");
    }
}
