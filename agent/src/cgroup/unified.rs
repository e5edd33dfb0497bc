//! Files of a group by name.

use super::Setting;

/// One entry of `linux.resources.unified`: a file name of a controller, such as `memory.high`.
pub(super) fn settings(file: &str, value: &str, all: &mut Vec<Setting>) -> Result<(), String> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_');
    let controller = file.split_once('.').map_or("", |(controller, _)| controller);
    // The agent relies on the files of cgroup itself.
    if controller.is_empty() || controller == "cgroup" || !file.bytes().all(plain) {
        return Err(format!("linux.resources.unified: {file:?} is no file of a controller, such as \"memory.high\""));
    }
    all.push(Setting::new("unified", file, value));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_files_of_controllers_are_written() {
        let mut all = Vec::new();
        settings("memory.high", "1000", &mut all).unwrap();
        assert_eq!(all.len(), 1);
        for file in ["", "memory", "cgroup.kill", "../memory.max", "a/b.c", ".procs"] {
            assert!(settings(file, "1", &mut Vec::new()).is_err(), "{file:?}");
        }
    }
}
