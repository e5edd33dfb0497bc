use clap::Parser;
use oci_spec::runtime::Spec;
use sandbox::image::ImageConfig;

use super::args::RunArgs;
use super::request::Request;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    run: RunArgs,
}

fn parse(words: &[&str]) -> Result<RunArgs, String> {
    let words = ["run"].iter().chain(words);
    Command::try_parse_from(words).map(|command| command.run).map_err(|error| error.to_string())
}

fn request(words: &[&str]) -> Request {
    Request::new(parse(words).unwrap()).unwrap()
}

fn image() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/image/bin".into(), "LANG=C".into()],
        entrypoint: vec!["/entry".into()],
        cmd: vec!["default".into()],
        user: "app".into(),
        working_dir: "/srv".into(),
        ..ImageConfig::default()
    }
}

fn spec(request: &Request) -> Spec {
    let container = request.container("0123456789ab", &image(), 2, None).unwrap();
    serde_json::from_slice(&container.spec_json).unwrap()
}

fn args(words: &[&str]) -> Vec<String> {
    spec(&request(words)).process().as_ref().unwrap().args().clone().unwrap()
}

fn env(words: &[&str]) -> Vec<String> {
    spec(&request(words)).process().as_ref().unwrap().env().clone().unwrap()
}

#[test]
fn everything_after_the_image_is_the_containers() {
    for words in [
        &["--rm", "alpine", "ls", "-l", "--rm", "-it", "--", "--name", "x"][..],
        &["alpine", "-it", "--rm"],
        &["alpine", "--help"],
        &["alpine", "--", "-x"],
        &["-it", "alpine", "sh", "-c", "echo -n hi"],
    ] {
        let parsed = parse(words).unwrap();
        let start = words.iter().position(|word| *word == "alpine").unwrap();
        assert_eq!(parsed.image_and_command, &words[start..], "{words:?}");
        assert_eq!(parsed.name, None);
    }
}

#[test]
fn flags_are_dockers() {
    let parsed =
        parse(&["-it", "-eA=1", "-e", "B", "--env=C=3", "-w/x", "-u", "1:2", "-m2g", "--cpus=0.5", "i"]).unwrap();
    assert!(parsed.interactive && parsed.tty);
    assert_eq!(parsed.env, ["A=1", "B", "C=3"]);
    assert_eq!((parsed.workdir.as_deref(), parsed.user.as_deref()), (Some("/x"), Some("1:2")));
    assert_eq!((parsed.memory, parsed.cpus), (2 << 30, 0.5));
    assert_eq!(parse(&["-ti", "i"]).unwrap().timings, None);
    assert!(parse(&["--timings", "i"]).unwrap().timings.is_some());
    assert_eq!(parse(&["--entrypoint", "", "i"]).unwrap().entrypoint.as_deref(), Some(""));
}

#[test]
fn wrong_flags_are_refused_with_the_reason() {
    for (words, why) in [
        (&["--network", "host", "i"][..], "no network yet"),
        (&["--network=bridge", "i"], "no network yet"),
        (&["-w", "relative", "i"], "absolute"),
        (&["-v", "name:/x", "i"], "named volume"),
        (&["-m", "lots", "i"], "not a size"),
        (&["--timeout", "soon", "i"], "not a time span"),
        (&["--name", "a b", "i"], "not a sandbox name"),
        (&["--accel", "xen", "i"], "emulated"),
        (&["--no-such-flag", "i"], "--no-such-flag"),
        (&["--hostname", "a_b", "i"], "host name"),
        (&["--rm"], "IMAGE"),
    ] {
        let error = parse(words).unwrap_err();
        assert!(error.contains(why), "{words:?}: {error}");
    }
}

#[test]
fn resources_beyond_the_host_are_refused() {
    for (words, why) in
        [(&["-m", "1m", "i"][..], "1 MiB"), (&["-m", "9999g", "i"], "MiB"), (&["--cpus", "999", "i"], "999 CPUs")]
    {
        let error = format!("{:#}", Request::new(parse(words).unwrap()).unwrap_err());
        assert!(error.contains(why), "{words:?}: {error}");
    }
}

#[test]
fn the_command_replaces_the_images_and_the_entry_point_drops_it() {
    assert_eq!(args(&["i"]), ["/entry", "default"]);
    assert_eq!(args(&["i", "a", "b"]), ["/entry", "a", "b"]);
    assert_eq!(args(&["--entrypoint", "/mine", "i"]), ["/mine"]);
    assert_eq!(args(&["--entrypoint", "/mine", "i", "a"]), ["/mine", "a"]);
    assert_eq!(args(&["--entrypoint", "", "i", "a"]), ["a"]);
    let nothing = request(&["--entrypoint", "", "i"]).container("x", &image(), 1, None).unwrap_err();
    assert!(nothing.to_string().contains("nothing to run"));
}

#[test]
fn the_users_environment_wins_over_the_images() {
    let got = env(&["-e", "LANG=de", "-e", "NEW=1", "i"]);
    assert_eq!(got, ["PATH=/image/bin", "HOSTNAME=0123456789ab", "LANG=de", "NEW=1"]);
    assert!(env(&["-t", "i"]).contains(&"TERM=xterm".to_owned()));
    let unset = env(&["-e", "LANG", "-e", "BULKHEAD_TEST_NO_SUCH_VARIABLE", "i"]);
    assert_eq!(unset.iter().any(|entry| entry.starts_with("LANG=")), std::env::var("LANG").is_ok());
}

#[test]
fn environment_files_come_before_the_command_line() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("env");
    std::fs::write(&file, "A=file\nB=file\n").unwrap();
    let path = file.to_str().unwrap();
    let got = env(&["-e", "B=line", "--env-file", path, "i"]);
    assert!(got.ends_with(&["A=file".into(), "B=line".into()]), "{got:?}");
    std::fs::write(&file, "bad name=1\n").unwrap();
    let error = format!("{:#}", Request::new(parse(&["--env-file", path, "i"]).unwrap()).unwrap_err());
    assert!(error.contains(path) && error.contains("line 1"), "{error}");
    let missing = Request::new(parse(&["--env-file", "/nonexistent", "i"]).unwrap()).unwrap_err();
    assert!(format!("{missing:#}").contains("/nonexistent"));
}

#[test]
fn a_working_directory_of_the_user_must_exist_and_one_of_the_image_is_made() {
    let of_image = request(&["i"]).container("x", &image(), 1, None).unwrap();
    assert!(of_image.create_cwd && of_image.user == "app");
    let of_user = request(&["-w", "/x", "-u", "0", "i"]).container("x", &image(), 1, None).unwrap();
    assert!(!of_user.create_cwd && of_user.user == "0");
}

#[test]
fn streams_follow_the_flags() {
    let streams = |words: &[&str]| {
        let set = request(words).streams();
        (set.stdin, set.stdout, set.stderr)
    };
    assert_eq!(streams(&["i"]), (false, true, true));
    assert_eq!(streams(&["-i", "i"]), (true, true, true));
    assert_eq!(streams(&["-it", "i"]), (true, true, false));
    assert_eq!(streams(&["-t", "i"]), (false, true, false));
}

#[test]
fn volumes_are_numbered_as_they_are_mounted() {
    let request = request(&["-v", "/etc:/deep/in:ro", "-v", "/usr:/top", "--tmpfs", "/mem", "i"]);
    assert_eq!(request.volumes[0].source.to_str(), Some("/usr"));
    assert!(request.volumes[1].read_only && !request.volumes[0].read_only);
    let spec = spec(&request);
    let mounts = spec.mounts().as_ref().unwrap();
    let source = |destination: &str| {
        let mount = mounts.iter().find(|mount| mount.destination().to_str() == Some(destination)).unwrap();
        mount.source().as_ref().unwrap().to_str().unwrap().to_owned()
    };
    assert!(source("/top").ends_with("/volumes/0") && source("/deep/in").ends_with("/volumes/1"));
    assert_eq!(source("/mem"), "tmpfs");
}
