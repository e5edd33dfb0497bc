//! Manifests and indexes, and which of an index's entries is taken.

use super::super::fixtures::full;
use super::*;

const CONFIG: &str = "application/vnd.oci.image.config.v1+json";

fn manifest(config_type: &str, layer_type: &str, layers: usize) -> String {
    let digest = Digest::of(b"x");
    let layer = format!(r#"{{"mediaType":"{layer_type}","digest":"{digest}","size":1}}"#);
    format!(
        r#"{{"schemaVersion":2,"config":{{"mediaType":"{config_type}","digest":"{digest}","size":2}},"layers":[{}]}}"#,
        vec![layer; layers].join(",")
    )
}

fn entry(name: &str, platform: &str) -> String {
    let digest = Digest::of(name.as_bytes());
    format!(r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":1{platform}}}"#)
}

fn on(os: &str, architecture: &str, variant: &str) -> String {
    let variant = if variant.is_empty() { String::new() } else { format!(r#","variant":"{variant}""#) };
    format!(r#","platform":{{"os":"{os}","architecture":"{architecture}"{variant}}}"#)
}

fn choose(entries: &[String]) -> Result<Digest, String> {
    let text = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, entries.join(","));
    let Document::Index(entries) = parse(text.as_bytes()).unwrap() else { panic!("not an index") };
    choose_platform(&entries).map(|entry| entry.digest).map_err(|error| error.to_string())
}

#[test]
fn every_tar_layer_is_accepted_and_nothing_else() {
    for layer in LAYER_TYPES {
        assert!(parse(manifest(CONFIG, layer, 1).as_bytes()).is_ok(), "{layer}");
    }
    let refused = |text: String| full(&parse(text.as_bytes()).unwrap_err());
    let encrypted = "application/vnd.oci.image.layer.v1.tar+gzip+encrypted";
    assert_eq!(
        refused(manifest(CONFIG, encrypted, 1)),
        format!(
            "layer {} has the media type `{encrypted}`; tar layers, plain or with gzip or zstd, are supported",
            Digest::of(b"x")
        )
    );
    let helm = "application/vnd.cncf.helm.config.v1+json";
    assert_eq!(
        refused(manifest(helm, LAYER_TYPES[1], 1)),
        format!("this is not a container image: its configuration has the media type `{helm}`")
    );
    assert_eq!(refused(manifest(CONFIG, LAYER_TYPES[1], 0)), "the image has 0 layers; 1 to 128 are supported");
    assert_eq!(refused(manifest(CONFIG, LAYER_TYPES[1], 129)), "the image has 129 layers; 1 to 128 are supported");
    assert_eq!(
        refused(r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned()),
        "the image's manifest has schema version 1; only version 2 is supported. Push the image again with a current docker, skopeo or buildah"
    );
    assert_eq!(
        refused("{}".to_owned()),
        "the image's manifest is not valid JSON of a manifest or index: neither `manifests` nor `config` and `layers` are there"
    );
}

#[test]
fn the_plain_amd64_entry_is_taken() {
    let entries = [
        entry("arm", &on("linux", "arm64", "v8")),
        entry("attestation", &on("unknown", "unknown", "")),
        entry("v3", &on("linux", "amd64", "v3")),
        entry("plain", &on("linux", "amd64", "")),
    ];
    assert_eq!(choose(&entries), Ok(Digest::of(b"plain")));
    assert_eq!(choose(&entries[..3]), Ok(Digest::of(b"v3")));
    assert_eq!(choose(&entries[..2]), Err("the image has no variant for linux/amd64; it has linux/arm64".to_owned()));
    assert_eq!(choose(&[entry("only", "")]), Ok(Digest::of(b"only")));
    assert_eq!(choose(&[]), Err("the image has no variant for linux/amd64; it has none at all".to_owned()));
}

#[test]
fn sizes_and_digests_are_checked() {
    assert_eq!(
        check_size("manifest", MANIFEST_MAX_BYTES + 1, MANIFEST_MAX_BYTES).unwrap_err().to_string(),
        "the image's manifest is 4194305 bytes long; at most 4194304 are accepted"
    );
    let (good, other) = (Digest::of(b"good"), Digest::of(b"other"));
    assert_eq!(
        verify("configuration", good, b"other").unwrap_err().to_string(),
        format!("the image's configuration does not match its digest: expected {good}, got {other}")
    );
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_parsed_or_refused(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..300)) {
        let _ = parse(&bytes);
    }
}
