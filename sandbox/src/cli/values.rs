//! Values of options as docker writes them: sizes, durations, environment entries.

use std::time::Duration;

/// Longest environment file in bytes: more than any process can be given.
pub(crate) const ENV_FILE_MAX_BYTES: u64 = 4 * 1024 * 1024;

/// `512m`, `1g`, `100k`, `1073741824` (bytes), also `1.5g`, `512MiB`: bytes.
pub(crate) fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size: write a number and b, k, m, g or t, such as 512m");
    let lower = text.to_ascii_lowercase();
    let digits = lower.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let shift = match lower.get(digits.len()..).unwrap_or_default() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(wrong()),
    };
    let plain = !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit() || c == '.');
    if let (true, Ok(whole)) = (plain, digits.parse::<u64>()) {
        return whole.checked_mul(1 << shift).ok_or_else(wrong);
    }
    let number: f64 = digits.parse().map_err(|_| wrong())?;
    let bytes = number * f64::from(1_u32 << (shift % 30)) * if shift >= 30 { f64::from(1_u32 << 30) } else { 1.0 };
    // Above 2^53 a fraction means nothing any more.
    if !plain || !(0.0..9e15).contains(&bytes) {
        return Err(wrong());
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, checked above")]
    let bytes = bytes as u64;
    Ok(bytes)
}

/// `30`, `30s`, `1h30m`, `500ms`, `1.5h`: a time span above zero; a bare number means seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a time span: write such as 30s, 5m, 1h30m or 500ms");
    let mut total = 0.0;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(rest.len());
        let (number, tail) = rest.split_at(digits);
        let unit = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit);
        let seconds = match unit {
            "" if rest == text => 1.0,
            "ms" => 0.001,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            "d" => 86_400.0,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * seconds;
        rest = tail;
    }
    match Duration::try_from_secs_f64(total) {
        Ok(duration) if !duration.is_zero() => Ok(duration),
        _ => Err(wrong()),
    }
}

/// One environment entry a user asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EnvEntry {
    pub(crate) key: String,
    /// `None` unsets the variable: it was to be taken from here, and is not set here.
    pub(crate) value: Option<String>,
}

/// `KEY=VALUE`, or `KEY` for the value it has here.
pub(crate) fn parse_env(entry: &str) -> Result<EnvEntry, String> {
    let (key, value) = entry.split_once('=').map_or((entry, None), |(key, value)| (key, Some(value)));
    if key.is_empty() {
        return Err(format!("environment entry {entry:?} has no name: write KEY=VALUE"));
    }
    if key.contains(char::is_whitespace) || entry.contains('\0') {
        return Err(format!("environment entry {entry:?}: a name holds no white space, a value no NUL byte"));
    }
    let value = match (value, std::env::var(key)) {
        (Some(value), _) => Some(value.to_owned()),
        (None, Ok(value)) => Some(value),
        (None, Err(std::env::VarError::NotPresent)) => None,
        (None, Err(std::env::VarError::NotUnicode(_))) => {
            return Err(format!("environment variable {key} is not UTF-8"));
        }
    };
    Ok(EnvEntry { key: key.to_owned(), value })
}

/// The entries of an environment file: one a line, `#` begins a comment, quotes are part of the value.
pub(crate) fn parse_env_file(text: &str) -> Result<Vec<EnvEntry>, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut entries = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        entries.push(parse_env(line).map_err(|error| format!("line {}: {error}", number + 1))?);
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(key: &str, value: Option<&str>) -> EnvEntry {
        EnvEntry { key: key.into(), value: value.map(Into::into) }
    }

    #[test]
    fn sizes_are_dockers() {
        for (text, bytes) in [
            ("512m", 512 << 20),
            ("1g", 1 << 30),
            ("1G", 1 << 30),
            ("100k", 102_400),
            ("7", 7),
            ("7b", 7),
            ("1.5g", 3 << 29),
            ("64MiB", 64 << 20),
            ("0.5k", 512),
            ("2t", 2 << 40),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "m", "-1m", "1x", "1e3", "nan", "inf", "99999999999999999999g", "1..5g", " 1m"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_add_their_parts() {
        for (text, ms) in [
            ("30", 30_000),
            ("30s", 30_000),
            ("1h30m", 5_400_000),
            ("500ms", 500),
            ("1.5h", 5_400_000),
            ("1m1s", 61_000),
            ("0.25", 250),
        ] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(ms)), "{text}");
        }
        for text in ["", "0", "0s", "-1s", "s", "1x", "1m30", "1 s", "99999999999999999999999d"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn environment_entries_are_given_or_taken_from_here() {
        assert_eq!(parse_env("A=1=2"), Ok(entry("A", Some("1=2"))));
        assert_eq!(parse_env("A="), Ok(entry("A", Some(""))));
        let path = std::env::var("PATH").unwrap();
        assert_eq!(parse_env("PATH"), Ok(entry("PATH", Some(&path))));
        assert_eq!(parse_env("BULKHEAD_TEST_NO_SUCH_VARIABLE"), Ok(entry("BULKHEAD_TEST_NO_SUCH_VARIABLE", None)));
        assert!(parse_env("=x").is_err() && parse_env("a b=x").is_err() && parse_env("").is_err());
    }

    #[test]
    fn environment_files_keep_values_as_they_are() {
        let text = "\u{feff}# comment\n\nA=1\n  B=\"two words\" \nC=#no comment\r\nBULKHEAD_TEST_NO_SUCH_VARIABLE\n";
        let expected = [
            entry("A", Some("1")),
            entry("B", Some("\"two words\" ")),
            entry("C", Some("#no comment")),
            entry("BULKHEAD_TEST_NO_SUCH_VARIABLE", None),
        ];
        assert_eq!(parse_env_file(text).unwrap(), expected);
        assert!(parse_env_file("A=1\nwrong name=2\n").unwrap_err().starts_with("line 2: "));
    }
}
