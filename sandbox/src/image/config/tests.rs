//! Configurations as builders write them, and as they should not be.

use super::*;

fn document(config: &str) -> String {
    let diff_id = Digest::of(b"layer");
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{config},"rootfs":{{"type":"layers","diff_ids":["{diff_id}"]}},"history":[]}}"#
    )
}

fn config(config: &str) -> ImageConfig {
    parse(document(config).as_bytes()).unwrap().config
}

fn refused(config: &str) -> String {
    parse(document(config).as_bytes()).unwrap_err().to_string()
}

#[test]
fn everything_a_container_needs_is_read() {
    let config = config(
        r#"{"User":"1000:100","Env":["PATH=/bin","EMPTY="],"Entrypoint":["/init","-v"],"Cmd":["sh"],"WorkingDir":"/work",
        "StopSignal":"SIGQUIT","ExposedPorts":{"80/tcp":{}},"Volumes":{"/data":{}},"Labels":{"a":"b"},"OnBuild":null}"#,
    );
    assert_eq!(config.env, ["PATH=/bin", "EMPTY="]);
    assert_eq!((config.entrypoint, config.cmd), (vec!["/init".into(), "-v".into()], vec!["sh".to_owned()]));
    assert_eq!((config.user.as_str(), config.working_dir.as_str()), ("1000:100", "/work"));
    assert_eq!(config.stop_signal, Some(3));
    assert_eq!((config.exposed_ports, config.volumes), (vec!["80/tcp".to_owned()], vec!["/data".to_owned()]));
}

#[test]
fn what_is_missing_or_null_has_a_default() {
    let expected = ImageConfig { working_dir: "/".to_owned(), ..ImageConfig::default() };
    assert_eq!(config("{}"), expected);
    assert_eq!(config("null"), expected);
    assert_eq!(
        config(r#"{"Env":null,"Cmd":null,"Entrypoint":null,"Volumes":null,"WorkingDir":"","StopSignal":""}"#),
        expected
    );
    assert_eq!(config(r#"{"WorkingDir":"srv/app"}"#).working_dir, "/srv/app");
}

#[test]
fn signals_have_names_and_numbers() {
    for (text, number) in
        [("SIGTERM", 15), ("term", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("SIGRTMIN", 34), ("RTMAX", 64)]
    {
        assert_eq!(config(&format!(r#"{{"StopSignal":"{text}"}}"#)).stop_signal, Some(number), "{text}");
    }
    for text in ["0", "65", "SIGWHAT", "RTMIN+31", "RTMAX-31", "RTMIN+99999999999", "-1", "RTMIN-1"] {
        assert_eq!(
            refused(&format!(r#"{{"StopSignal":"{text}"}}"#)),
            format!("the image's StopSignal `{text}` is not a signal of Linux, such as SIGTERM or 15")
        );
    }
}

#[test]
fn wrong_values_are_named() {
    assert_eq!(
        refused(r#"{"Env":["NOVALUE"]}"#),
        "the image's environment entry `NOVALUE` is not of the form NAME=VALUE"
    );
    assert_eq!(refused(r#"{"Env":["=x"]}"#), "the image's environment entry `=x` is not of the form NAME=VALUE");
    assert_eq!(refused(r#"{"Cmd":["a\u0000b"]}"#), "the image's Cmd holds a NUL byte");
    assert_eq!(refused(r#"{"User":"a\u0000b"}"#), "the image's User holds a NUL byte");
    assert_eq!(
        refused(&format!(r#"{{"WorkingDir":"/{}"}}"#, "w".repeat(5000))),
        "the image's WorkingDir is 5001 bytes long; at most 4096 are supported"
    );
    assert_eq!(
        refused(&format!(r#"{{"Env":["A={}"]}}"#, "v".repeat(1 << 20))),
        "the image's Env is 1048579 bytes long; at most 1048576 are supported"
    );
    assert_eq!(
        refused(r#"{"Cmd":"sh -c x"}"#),
        "the image's configuration is not valid JSON of an image configuration"
    );
}

#[test]
fn other_machines_and_layers_are_refused() {
    let diff_id = Digest::of(b"layer");
    let refused = |text: &str| parse(text.as_bytes()).unwrap_err().to_string();
    assert_eq!(
        refused(&document("{}").replace("amd64", "arm64")),
        "the image is for linux/arm64; sandboxes run linux/amd64. Choose an image built for linux/amd64"
    );
    assert!(refused(&document("{}").replace("linux", "windows")).starts_with("the image is for windows/amd64"));
    assert_eq!(
        refused(&document("{}").replace("layers", "disk")),
        "the image's rootfs has the type `disk`; only `layers` is known"
    );
    assert_eq!(
        refused(&document("{}").replace(&format!("\"{diff_id}\""), "")),
        "the image has 0 layers; 1 to 128 are supported"
    );
    let many = vec![format!("\"{diff_id}\""); 129].join(",");
    assert_eq!(
        refused(&document("{}").replace(&format!("\"{diff_id}\""), &many)),
        "the image has 129 layers; 1 to 128 are supported"
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }
}
