//! `-v`, `--mount` and `--tmpfs`: what a user wants to see where in the container.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};

use crate::cli::values::parse_size;

/// A mount as it was asked for; the source is looked at later, by [`MountRequest::check_source`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum MountRequest {
    /// A file or directory of this host.
    Bind {
        /// As written.
        source: PathBuf,
        /// Absolute path in the container.
        destination: String,
        /// Refuse writes.
        read_only: bool,
    },
    /// Memory.
    Tmpfs {
        /// Absolute path in the container.
        destination: String,
        /// Mount options.
        options: Vec<String>,
    },
}

impl MountRequest {
    pub(crate) fn destination(&self) -> &str {
        match self {
            Self::Bind { destination, .. } | Self::Tmpfs { destination, .. } => destination,
        }
    }
}

/// The real path of a bind's source, if it can be shared.
pub(crate) fn check_source(source: &Path) -> anyhow::Result<PathBuf> {
    let real = source.canonicalize();
    let real = real.with_context(|| format!("volume source {} cannot be used", source.display()))?;
    let kind = real.metadata().with_context(|| format!("volume source {} cannot be used", source.display()))?;
    ensure!(
        kind.is_dir() || kind.is_file(),
        "volume source {} is neither a directory nor a regular file: only those can be shared",
        source.display()
    );
    Ok(real)
}

/// Parents before what is mounted in them; each place once.
pub(crate) fn order(mut mounts: Vec<MountRequest>) -> anyhow::Result<Vec<MountRequest>> {
    let depth = |mount: &MountRequest| mount.destination().split('/').filter(|part| !part.is_empty()).count();
    mounts.sort_by_key(depth);
    for (index, mount) in mounts.iter().enumerate() {
        let twice = mounts.iter().skip(index + 1).any(|other| other.destination() == mount.destination());
        ensure!(!twice, "{} is mounted twice: give each place in the container one mount", mount.destination());
    }
    Ok(mounts)
}

/// `SRC:DST[:OPTIONS]`.
pub(crate) fn parse_volume(text: &str) -> Result<MountRequest, String> {
    let mut parts = text.split(':');
    let (Some(source), Some(destination), options, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(format!("{text:?}: write SRC:DST or SRC:DST:ro"));
    };
    if source.is_empty() {
        return Err(format!("{text:?} names no source: write SRC:DST"));
    }
    if !source.starts_with(['/', '.']) {
        return Err(format!("{source:?} would be a named volume, which do not exist yet: write ./{source} for a path"));
    }
    let mut read_only = false;
    for option in options.into_iter().flat_map(|options| options.split(',')) {
        match option {
            "ro" => read_only = true,
            "rw" => read_only = false,
            // SELinux labels for a confined process on the host: the one that reads here is our own.
            "z" | "Z" => {}
            _ => return Err(format!("unknown option {option:?}: ro, rw, z and Z are known")),
        }
    }
    Ok(MountRequest::Bind { source: source.into(), destination: parse_destination(destination)?, read_only })
}

/// `type=bind,src=…,dst=…,ro` or `type=tmpfs,dst=…,tmpfs-size=…`.
pub(crate) fn parse_mount(text: &str) -> Result<MountRequest, String> {
    let mut fields = MountFields::default();
    for field in text.split(',') {
        let (key, value) = field.split_once('=').map_or((field, None), |(key, value)| (key, Some(value)));
        fields.set(key, value)?;
    }
    let destination = parse_destination(fields.destination.ok_or("dst= is missing")?)?;
    match (fields.kind.unwrap_or("volume"), fields.source) {
        ("bind", Some(source)) if fields.tmpfs.is_empty() => {
            Ok(MountRequest::Bind { source: source.into(), destination, read_only: fields.read_only })
        }
        ("bind", Some(_)) => Err("tmpfs-size and tmpfs-mode are for type=tmpfs".to_owned()),
        ("bind", None) => Err("src= is missing".to_owned()),
        ("tmpfs", None) => {
            let access = if fields.read_only { "ro" } else { "rw" }.to_owned();
            let options = TMPFS_OPTIONS.iter().map(|option| (*option).to_owned()).chain(fields.tmpfs).chain([access]);
            Ok(MountRequest::Tmpfs { destination, options: options.collect() })
        }
        ("tmpfs", Some(_)) => Err("src= is not for type=tmpfs".to_owned()),
        ("volume", _) => {
            Err("named volumes (type=volume, docker's default) do not exist yet: use type=bind".to_owned())
        }
        (kind, _) => Err(format!("unknown type={kind}: bind and tmpfs are known")),
    }
}

/// What docker gives a tmpfs unless told otherwise.
const TMPFS_OPTIONS: &[&str] = &["noexec", "nosuid", "nodev"];

#[derive(Default)]
struct MountFields<'a> {
    kind: Option<&'a str>,
    source: Option<&'a str>,
    destination: Option<&'a str>,
    read_only: bool,
    tmpfs: Vec<String>,
}

impl<'a> MountFields<'a> {
    fn set(&mut self, key: &str, value: Option<&'a str>) -> Result<(), String> {
        let needed = || value.filter(|value| !value.is_empty()).ok_or_else(|| format!("{key} has no value"));
        match key {
            "type" => self.kind = Some(needed()?),
            "src" | "source" => self.source = Some(needed()?),
            "dst" | "destination" | "target" => self.destination = Some(needed()?),
            "ro" | "readonly" => {
                self.read_only = match value {
                    None | Some("true" | "1") => true,
                    Some("false" | "0") => false,
                    Some(other) => return Err(format!("{key}={other}: write true or false")),
                }
            }
            "tmpfs-size" => self.tmpfs.push(format!("size={}", parse_size(needed()?)?)),
            "tmpfs-mode" => {
                let mode = needed()?;
                let octal = u32::from_str_radix(mode, 8).is_ok_and(|mode| mode <= 0o7777);
                if !octal {
                    return Err(format!("tmpfs-mode={mode}: write an octal mode such as 1777"));
                }
                self.tmpfs.push(format!("mode={mode}"));
            }
            _ => return Err(format!("unknown field {key:?}: type, src, dst, ro, tmpfs-size and tmpfs-mode are known")),
        }
        Ok(())
    }
}

/// `DST[:OPTIONS]`.
pub(crate) fn parse_tmpfs(text: &str) -> Result<MountRequest, String> {
    let (destination, asked) = text.split_once(':').unwrap_or((text, ""));
    let known = |option: &str| {
        let flag = ["rw", "ro", "exec", "noexec", "suid", "nosuid", "dev", "nodev"].contains(&option);
        flag || ["size=", "mode=", "uid=", "gid=", "nr_inodes="].iter().any(|key| option.starts_with(key))
    };
    let asked: Vec<&str> = asked.split(',').filter(|option| !option.is_empty()).collect();
    if let Some(unknown) = asked.iter().find(|option| !known(option)) {
        return Err(format!("unknown option {unknown:?}"));
    }
    // The kernel takes the last of options that contradict each other.
    let options = TMPFS_OPTIONS.iter().chain(&asked).map(|option| (*option).to_owned()).collect();
    Ok(MountRequest::Tmpfs { destination: parse_destination(destination)?, options })
}

fn parse_destination(text: &str) -> Result<String, String> {
    let checked = || {
        ensure!(text.starts_with('/'), "it is not an absolute path");
        let parts: Vec<&str> = text.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        ensure!(!parts.is_empty(), "it is the container's root");
        if parts.contains(&"..") {
            bail!("it leads upwards");
        }
        Ok(format!("/{}", parts.join("/")))
    };
    checked().map_err(|error| format!("destination {text:?} cannot be used: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(source: &str, destination: &str, read_only: bool) -> MountRequest {
        MountRequest::Bind { source: source.into(), destination: destination.into(), read_only }
    }

    #[test]
    fn volumes_are_dockers() {
        assert_eq!(parse_volume("/a:/b"), Ok(bind("/a", "/b", false)));
        assert_eq!(parse_volume("./a:/b/:ro"), Ok(bind("./a", "/b", true)));
        assert_eq!(parse_volume("/a:/b:rw,Z"), Ok(bind("/a", "/b", false)));
        for (wrong, why) in [
            ("data:/b", "named volume"),
            ("/a", "SRC:DST"),
            ("/a:b", "absolute"),
            ("/a:/", "root"),
            ("/a:/b/../c", "upwards"),
            ("/a:/b:rx", "\"rx\""),
            (":/b", "no source"),
            ("/a:/b:ro:x", "SRC:DST"),
        ] {
            let error = parse_volume(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn mounts_are_spelled_out() {
        assert_eq!(parse_mount("type=bind,src=/a,dst=/b"), Ok(bind("/a", "/b", false)));
        assert_eq!(parse_mount("type=bind,source=x,target=/b,readonly"), Ok(bind("x", "/b", true)));
        assert_eq!(parse_mount("type=bind,source=x,destination=/b,ro=false"), Ok(bind("x", "/b", false)));
        let tmpfs = parse_mount("type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=1770").unwrap();
        let MountRequest::Tmpfs { options, .. } = tmpfs else { panic!("a tmpfs") };
        assert_eq!(options, ["noexec", "nosuid", "nodev", "size=1048576", "mode=1770", "rw"]);
        for (wrong, why) in [
            ("src=/a,dst=/b", "named volumes"),
            ("type=volume,src=a,dst=/b", "named volumes"),
            ("type=bind,dst=/b", "src="),
            ("type=bind,src=/a", "dst="),
            ("type=npipe,src=/a,dst=/b", "npipe"),
            ("type=bind,src=/a,dst=/b,bind-propagation=shared", "bind-propagation"),
            ("type=tmpfs,dst=/t,tmpfs-mode=9", "octal"),
            ("type=bind,src=,dst=/b", "no value"),
        ] {
            let error = parse_mount(wrong).unwrap_err();
            assert!(error.contains(why), "{wrong}: {error}");
        }
    }

    #[test]
    fn tmpfs_options_of_the_user_win() {
        let MountRequest::Tmpfs { destination, options } = parse_tmpfs("/t:exec,size=1m").unwrap() else {
            panic!("a tmpfs")
        };
        assert_eq!((destination.as_str(), options.last().map(String::as_str)), ("/t", Some("size=1m")));
        assert!(parse_tmpfs("/t:bogus").is_err() && parse_tmpfs("t").is_err());
    }

    #[test]
    fn parents_come_first_and_places_once() {
        let ordered = order(vec![bind("/x", "/a/b", false), bind("/y", "/a", false)]).unwrap();
        assert_eq!(ordered[0].destination(), "/a");
        let error = order(vec![bind("/x", "/a", false), bind("/y", "/a", true)]).unwrap_err().to_string();
        assert!(error.contains("/a is mounted twice"), "{error}");
    }

    #[test]
    fn a_source_must_be_there_and_a_file_or_directory() {
        assert!(check_source(Path::new("/nonexistent")).unwrap_err().to_string().contains("/nonexistent"));
        assert!(check_source(Path::new("/dev/null")).unwrap_err().to_string().contains("neither"));
        assert_eq!(check_source(Path::new("/usr/../etc")).unwrap(), Path::new("/etc"));
    }
}
