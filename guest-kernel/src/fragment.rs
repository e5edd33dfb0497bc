//! Configuration fragments: one option per line, each with the reason why it is on or off.
//!
//! ```text
//! # What the file is about.
//! CONFIG_NAME=value # reason
//! ```
//!
//! The value is `y`, `n`, a number or a quoted string. `n` means that the option must be absent from the result, also
//! when another option would select it. An option without a reason is an error, and so is one that is set twice.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use crate::Error;

/// The built-in fragments, by file name.
const BUILT_IN: &[(&str, &str)] = &[
    ("boot.config", include_str!("../config/boot.config")),
    ("containers.config", include_str!("../config/containers.config")),
    ("devices.config", include_str!("../config/devices.config")),
    ("filesystems.config", include_str!("../config/filesystems.config")),
    ("hardening.config", include_str!("../config/hardening.config")),
    ("memory.config", include_str!("../config/memory.config")),
    ("network.config", include_str!("../config/network.config")),
    ("size.config", include_str!("../config/size.config")),
    ("unwanted.config", include_str!("../config/unwanted.config")),
];

/// An option's value as Kconfig writes it, or `None` where the option must be absent.
pub type Value = Option<String>;

/// One line of a fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// What the option is set to.
    pub value: Value,
    /// Why.
    pub reason: String,
    /// The file that says so.
    pub fragment: String,
}

/// All fragments together: option name, with its `CONFIG_`, to setting.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fragments(BTreeMap<String, Setting>);

impl Fragments {
    /// Options in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Setting)> {
        self.0.iter().map(|(name, setting)| (name.as_str(), setting))
    }

    /// The fragments as Kconfig reads them. The order is fixed and reasons are left out: changing a comment does not
    /// change the kernel.
    #[must_use]
    pub fn to_kconfig(&self) -> String {
        let mut text = String::new();
        for (name, setting) in &self.0 {
            match &setting.value {
                Some(value) => text.push_str(&format!("{name}={value}\n")),
                None => text.push_str(&format!("# {name} is not set\n")),
            }
        }
        text
    }

    /// Adds a fragment's lines. `may_override` lets them change what an earlier fragment set.
    fn add(&mut self, fragment: &str, text: &str, may_override: bool) -> Result<(), Error> {
        let mut own = BTreeMap::new();
        for (number, line) in text.lines().enumerate() {
            let error = |why| Error::Fragment { fragment: fragment.into(), line: number + 1, why, text: line.into() };
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let (name, value, reason) = parse_line(line).map_err(error)?;
            let setting = Setting { value, reason, fragment: fragment.into() };
            let set_before = !may_override && self.0.contains_key(&name);
            if own.insert(name, setting).is_some() || set_before {
                return Err(error("option set twice"));
            }
        }
        self.0.extend(own);
        Ok(())
    }
}

/// Splits `CONFIG_NAME=value # reason`.
fn parse_line(line: &str) -> Result<(String, Value, String), &'static str> {
    let (name, rest) = line.split_once('=').ok_or("expected CONFIG_NAME=value # reason")?;
    let known = name
        .strip_prefix("CONFIG_")
        .is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_'));
    if !known {
        return Err("not an option name");
    }
    // A quoted value may contain the character that starts a reason.
    let value_end = match rest.strip_prefix('"') {
        Some(quoted) => quoted.find('"').ok_or("quote without an end")? + 2,
        None => rest.find([' ', '\t', '#']).unwrap_or(rest.len()),
    };
    let (value, comment) = rest.split_at_checked(value_end).ok_or("value without an end")?;
    let reason = comment.trim_start().strip_prefix('#').map(str::trim).unwrap_or_default();
    if reason.is_empty() {
        return Err("option without a reason");
    }
    let value = match value {
        "n" => None,
        "y" => Some(value.to_owned()),
        _ if value.starts_with('"') || is_number(value) => Some(value.to_owned()),
        _ => return Err("value is not y, n, a number or a quoted string"),
    };
    Ok((name.to_owned(), value, reason.to_owned()))
}

fn is_number(value: &str) -> bool {
    match value.strip_prefix("0x") {
        Some(digits) => u64::from_str_radix(digits, 16).is_ok(),
        None => value.parse::<i64>().is_ok(),
    }
}

/// Reads the built-in fragments and then `extra` ones, whose lines win.
///
/// # Errors
///
/// A file that cannot be read and a line that is not an option with a reason.
pub fn load(extra: &[PathBuf]) -> Result<Fragments, Error> {
    let mut all = Fragments::default();
    for (name, text) in BUILT_IN {
        all.add(name, text, false)?;
    }
    for path in extra {
        let text = fs::read_to_string(path).map_err(Error::io("read the fragment", path))?;
        all.add(&path.display().to_string(), &text, true)?;
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Fragments, Error> {
        let mut all = Fragments::default();
        all.add("test.config", text, false)?;
        Ok(all)
    }

    fn why(text: &str) -> String {
        parse(text).unwrap_err().to_string()
    }

    #[test]
    fn values_of_every_kind_are_read() {
        let all = parse(
            "# about\n\nCONFIG_A=y # on\nCONFIG_B=n # off\nCONFIG_C=0x1f # hex\nCONFIG_D=-3 # number\nCONFIG_E=\"a # b\" # text\n",
        )
        .unwrap();
        assert_eq!(
            all.to_kconfig(),
            "CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=0x1f\nCONFIG_D=-3\nCONFIG_E=\"a # b\"\n"
        );
        let (_, setting) = all.iter().last().unwrap();
        assert_eq!(setting.reason, "text");
        assert_eq!(setting.fragment, "test.config");
    }

    #[test]
    fn a_line_without_a_reason_is_refused() {
        assert_eq!(why("CONFIG_A=y # on\nCONFIG_B=y\n"), "test.config:2: option without a reason: \"CONFIG_B=y\"");
        assert!(why("CONFIG_B=y #  ").contains("option without a reason"));
    }

    #[test]
    fn malformed_lines_are_refused() {
        assert!(why("CONFIG_A").contains("expected CONFIG_NAME=value"));
        assert!(why("CONFIG_=y # x").contains("not an option name"));
        assert!(why("CONFIG_A B=y # x").contains("not an option name"));
        assert!(why("A=y # x").contains("not an option name"));
        assert!(why("CONFIG_A=m # x").contains("value is not"));
        assert!(why("CONFIG_A= # x").contains("value is not"));
        assert!(why("CONFIG_A=\"x # y").contains("quote without an end"));
    }

    #[test]
    fn an_option_is_set_once_unless_a_later_fragment_may_override() {
        assert!(why("CONFIG_A=y # x\nCONFIG_A=n # y").contains("option set twice"));
        let mut all = parse("CONFIG_A=y # x").unwrap();
        assert!(all.add("second", "CONFIG_A=n # y", false).is_err());
        all.add("second", "CONFIG_A=n # y", true).unwrap();
        assert_eq!(all.to_kconfig(), "# CONFIG_A is not set\n");
    }

    #[test]
    fn the_built_in_fragments_are_well_formed_and_complete() {
        let all = load(&[]).unwrap();
        let text = all.to_kconfig();
        for line in ["CONFIG_PVH=y", "CONFIG_VIRTIO_FS=y", "CONFIG_VIRTIO_VSOCKETS=y", "# CONFIG_MODULES is not set"] {
            assert!(text.lines().any(|present| present == line), "{line}");
        }
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("config");
        let on_disk = fs::read_dir(folder).unwrap().count();
        assert_eq!(on_disk, BUILT_IN.len(), "a file in config/ is not built in");
    }
}
