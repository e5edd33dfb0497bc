//! Registries that want a login. The credentials come from the environment, so these tests run themselves again with a
//! `DOCKER_CONFIG` of their own.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use super::super::super::fixtures::full;
use super::super::super::{Images, NoProgress};
use super::super::auth::{Challenge, challenge};
use super::server::Registry;
use super::{pull, sample_layout};

/// `user` and `secret`, hashed by bcrypt.
const HTPASSWD: &str = "user:$2y$05$5UIOIHg5n5SOAO0ZPfBx5e9zU3hYAfg2GMggk3SMzacBJjlHMnS7u\n";
/// The same in base64, as the docker configuration keeps it.
const AUTH: &str = "dXNlcjpzZWNyZXQ=";

const NAME: &str = "BULKHEAD_TEST_PULL";

/// Not a test of its own: what [`pull_with_config`] runs in another process.
#[test]
#[ignore = "run by the tests of this file, with a configuration of their own"]
fn child() {
    let Ok(name) = std::env::var(NAME) else { return };
    let data = tempfile::tempdir().unwrap();
    let images = Images::open(data.path()).unwrap();
    match pull(&images, &name, Arc::new(NoProgress)) {
        Ok(image) => println!("pulled {} layers", image.layers.len()),
        Err(error) => println!("{}", full(&error)),
    }
}

fn pull_with_config(name: &str, config: &str) -> String {
    pull_with(name, config, Path::new("/etc/ssl/certs/ca-certificates.crt"))
}

fn pull_with(name: &str, config: &str, authorities: &Path) -> String {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("config.json"), config).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "image::registry::tests::login::child", "--ignored", "--nocapture"]);
    command.env("DOCKER_CONFIG", dir.path()).env("SSL_CERT_FILE", authorities).env_remove("SSL_CERT_DIR");
    let output = command.env(NAME, name).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}");
    let answer = text.lines().find(|line| line.starts_with("pulled") || line.starts_with("cannot"));
    answer.unwrap_or(&text).to_owned()
}

#[test]
fn a_password_is_taken_from_the_docker_configuration() {
    let dir = tempfile::tempdir().unwrap();
    let htpasswd = dir.path().join("htpasswd");
    fs::write(&htpasswd, HTPASSWD).unwrap();
    let registry = Registry::start(&format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", htpasswd.display()));
    registry.push(&sample_layout(&registry.path("")), "app:1", &["--dest-creds", "user:secret"]);
    let host = registry.host();
    let name = format!("{host}/app:1");
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"{AUTH}"}}}}}}"#);
    assert_eq!(pull_with_config(&name, &config), "pulled 2 layers");
    let fix = format!("check the spelling and, if the image is private, run `docker login {host}`");
    assert_eq!(
        pull_with_config(&name, "{}"),
        format!(
            "cannot pull {name}: registry {host} denies access to app: it asks for a user name and a password; {fix}"
        )
    );
    // user:wrong
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"dXNlcjp3cm9uZw=="}}}}}}"#);
    assert_eq!(
        pull_with_config(&name, &config),
        format!("cannot pull {name}: registry {host} denies access to app: authentication required; {fix}")
    );
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"%%%"}}}}}}"#);
    assert_eq!(
        pull_with_config(&name, &config),
        format!(
            "cannot pull {name}: the credentials for registry {host} cannot be read: Unable to decode credential; run `docker login {host}` again"
        )
    );
}

/// `127.1` is an address of loopback, but not spelt as one: it is spoken to with TLS.
#[test]
fn tls_is_spoken_outside_loopback_and_its_certificate_checked() {
    let dir = tempfile::tempdir().unwrap();
    let openssl = |args: &str| {
        let output = Command::new("openssl").args(args.split(' ')).current_dir(dir.path()).output();
        let output = output.expect("openssl: apt-get install openssl");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    };
    fs::write(dir.path().join("san"), "subjectAltName=IP:127.0.0.1\nbasicConstraints=CA:FALSE\n").unwrap();
    openssl("req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=authority");
    openssl("req -newkey rsa:2048 -nodes -keyout key -out csr -subj /CN=registry");
    openssl("x509 -req -in csr -CA ca.pem -CAkey ca.key -CAcreateserial -out cert -days 2 -extfile san");
    let path = |name: &str| dir.path().join(name);
    let registry = Registry::start_with(
        &format!("{{certificate: {}, key: {}}}", path("cert").display(), path("key").display()),
        "",
    );
    registry.push(&sample_layout(&registry.path("")), "app:1", &[]);
    let host = registry.host().replace("localhost", "127.1");
    assert_eq!(pull_with(&format!("{host}/app:1"), "{}", &path("ca.pem")), "pulled 2 layers");
    assert_eq!(
        pull_with_config(&format!("{host}/app:1"), "{}"),
        format!(
            "cannot pull {host}/app:1: registry {host} cannot be reached: invalid peer certificate: UnknownIssuer; add the authority of its certificate to the system's, with update-ca-certificates"
        )
    );
    let plain = Registry::start("");
    let host = plain.host().replace("localhost", "127.1");
    assert_eq!(
        pull_with_config(&format!("{host}/app:1"), "{}"),
        format!(
            "cannot pull {host}/app:1: registry {host} cannot be reached: it does not speak TLS; plain HTTP is spoken only to registries on this machine's loopback; give the registry a certificate"
        )
    );
    assert_eq!(
        pull_with(&format!("{host}/app:1"), "{}", Path::new("/nonexistent")),
        format!(
            "cannot pull {host}/app:1: registry {host} cannot be reached: this machine trusts no certificate authority; install the package ca-certificates"
        )
    );
}

/// Answers every request with a token, and keeps the requests.
fn token_service() -> (String, std::sync::mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let realm = format!("http://{}/token", listener.local_addr().unwrap());
    let (sender, receiver) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = vec![0; 8192];
            let length = stream.read(&mut request).unwrap();
            let answer = r#"{"token":"abc"}"#;
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", answer.len());
            stream.write_all(format!("{head}{answer}").as_bytes()).unwrap();
            if sender.send(String::from_utf8_lossy(&request[..length]).into_owned()).is_err() {
                return;
            }
        }
    });
    (realm, receiver)
}

#[test]
fn a_token_is_fetched_where_the_registry_says() {
    let (realm, requests) = token_service();
    let registry = Registry::start(&format!("auth: {{silly: {{realm: '{realm}', service: test-service}}}}\n"));
    registry.push(&sample_layout(&registry.path("")), "app:1", &["--dest-creds", "user:secret"]);
    while requests.try_recv().is_ok() {}
    let host = registry.host();
    let config = format!(r#"{{"auths":{{"{host}":{{"auth":"{AUTH}"}}}}}}"#);
    assert_eq!(pull_with_config(&format!("{host}/app:1"), &config), "pulled 2 layers");
    let request = requests.recv().unwrap();
    assert!(request.starts_with("GET /token?scope=repository%3Aapp%3Apull&service=test-service "), "{request}");
    assert!(request.to_lowercase().contains(&format!("authorization: basic {AUTH}").to_lowercase()), "{request}");
    assert!(requests.try_recv().is_err(), "one token serves a whole pull");
}

#[test]
fn challenges_are_understood() {
    let bearer = r#"Bearer realm="https://auth.example/token",service="reg",scope="repository:a/b:pull""#;
    let expected = Challenge::Bearer {
        realm: "https://auth.example/token".to_owned(),
        service: Some("reg".to_owned()),
        scope: Some("repository:a/b:pull".to_owned()),
    };
    assert_eq!(challenge(&[bearer]).unwrap(), expected);
    assert_eq!(challenge(&[r#"Basic realm="x""#, bearer]).unwrap(), expected);
    assert_eq!(challenge(&[r#"basic realm="x""#]).unwrap(), Challenge::Basic);
    for hostile in ["", "Bearer", "Negotiate", "Bearer realm", "\"", "Bearer service=\"x\""] {
        assert_eq!(challenge(&[hostile]), None, "{hostile}");
    }
}

#[test]
fn credentials_go_to_no_unsafe_place() {
    let reference = "registry.example/app".parse().unwrap();
    let wanted = |realm: &str| super::super::auth::token_request(&reference, realm, None, None, None);
    assert!(wanted("http://registry.example/token").is_none());
    assert!(wanted("file:///etc/passwd").is_none());
    let url = wanted("https://auth.example/token?a=b").unwrap().url;
    assert_eq!(url.as_str(), "https://auth.example/token?a=b&scope=repository%3Aapp%3Apull");
}
