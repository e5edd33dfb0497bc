//! Compares a `.config` that Kconfig wrote with what the fragments asked for.
//!
//! Kconfig silently drops an option whose dependencies are not met and silently adds one that another selects; both
//! would be found much later, as a device that does not appear or a kernel that has grown.

use std::collections::BTreeMap;
use std::fmt;

use crate::fragment::{Fragments, Value};

/// One option that is not as the fragments want it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Option name, with its `CONFIG_`.
    pub option: String,
    /// What the fragment wants.
    pub wanted: Value,
    /// What the configuration has.
    pub found: Value,
    /// The fragment.
    pub fragment: String,
    /// Its reason.
    pub reason: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { option, fragment, reason, .. } = self;
        match (&self.wanted, &self.found) {
            (None, Some(found)) => write!(f, "  {option} is unwanted but is {found}: something selects it")?,
            (Some(wanted), None) => {
                write!(f, "  {option} should be {wanted} but is not set: unknown here, or a dependency is missing")?;
            }
            (Some(wanted), Some(found)) => write!(f, "  {option} should be {wanted} but is {found}")?,
            (None, None) => write!(f, "  {option} is absent")?,
        }
        write!(f, " ({fragment}: {reason})")
    }
}

/// Lists every option of the fragments that `config` does not follow, in the order of their names.
#[must_use]
pub fn violations(fragments: &Fragments, config: &str) -> Vec<Violation> {
    let present = options(config);
    fragments
        .iter()
        .filter_map(|(option, setting)| {
            let found = present.get(option).map(|value| (*value).to_owned());
            (found != setting.value).then(|| Violation {
                option: option.to_owned(),
                wanted: setting.value.clone(),
                found,
                fragment: setting.fragment.clone(),
                reason: setting.reason.clone(),
            })
        })
        .collect()
}

/// The options that are set in a `.config`. Kconfig writes an absent one as a comment, or not at all.
fn options(config: &str) -> BTreeMap<&str, &str> {
    config
        .lines()
        .filter(|line| line.starts_with("CONFIG_"))
        .filter_map(|line| line.split_once('='))
        .filter(|(_, value)| *value != "n")
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fragment;
    use std::io::Write;

    fn messages(wanted: &str, config: &str) -> Vec<String> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(wanted.as_bytes()).unwrap();
        let all = fragment::load(&[file.path().to_path_buf()]).unwrap();
        violations(&all, config)
            .into_iter()
            .filter(|violation| violation.option.starts_with("CONFIG_TEST_"))
            .map(|violation| violation.to_string())
            .collect()
    }

    #[test]
    fn a_config_that_follows_the_fragments_passes() {
        let wanted = "CONFIG_TEST_A=y # a\nCONFIG_TEST_B=n # b\nCONFIG_TEST_C=\"x=y\" # c\nCONFIG_TEST_D=n # d\n";
        let config = "CONFIG_TEST_A=y\n# CONFIG_TEST_B is not set\nCONFIG_TEST_C=\"x=y\"\nCONFIG_OTHER=y\n";
        assert_eq!(messages(wanted, config), Vec::<String>::new());
    }

    #[test]
    fn a_dropped_option_is_named_with_its_reason() {
        let found = messages("CONFIG_TEST_A=y # needed\n", "# CONFIG_TEST_A is not set\n");
        assert_eq!(found.len(), 1);
        assert!(found[0].contains("CONFIG_TEST_A should be y but is not set"), "{found:?}");
        assert!(found[0].contains("needed"), "{found:?}");
    }

    #[test]
    fn a_selected_option_that_is_unwanted_is_named() {
        let found = messages("CONFIG_TEST_A=n # harmful\n", "CONFIG_TEST_A=y\n");
        assert!(found[0].contains("CONFIG_TEST_A is unwanted but is y"), "{found:?}");
    }

    #[test]
    fn another_value_is_named() {
        let found = messages("CONFIG_TEST_A=64 # many\n", "CONFIG_TEST_A=8\n");
        assert!(found[0].contains("CONFIG_TEST_A should be 64 but is 8"), "{found:?}");
    }

    #[test]
    fn an_empty_config_violates_every_wanted_option() {
        let all = fragment::load(&[]).unwrap();
        let wanted = all.iter().filter(|(_, setting)| setting.value.is_some()).count();
        assert_eq!(violations(&all, "").len(), wanted);
    }
}
