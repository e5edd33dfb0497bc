//! Credentials from the docker configuration, and the tokens that registries give for them (distribution's token
//! authentication: a 401 with `WWW-Authenticate: Bearer realm=…,service=…`, answered by a token from the realm).

use docker_credential::{CredentialRetrievalError, DockerCredential};
use reqwest::Url;
use serde::Deserialize;

use super::super::excerpt::excerpt;
use super::super::reference::Reference;
use super::error::RegistryError;

/// Under this name the docker configuration keeps the credentials of Docker Hub.
const DOCKER_HUB_KEY: &str = "https://index.docker.io/v1/";
/// Name under which an identity token is exchanged.
const CLIENT_ID: &str = "bulkhead";

/// What goes into the `Authorization` header.
#[derive(Clone)]
pub(super) enum Authorization {
    Basic(String, String),
    Bearer(String),
}

/// What a registry wants before it answers.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String>, scope: Option<String> },
}

/// A request for a token.
pub(super) struct TokenRequest {
    pub(super) url: Url,
    /// Sent as a form; otherwise the request is a GET.
    pub(super) form: Option<String>,
    pub(super) basic: Option<(String, String)>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

/// The user's credentials for the registry; `None` to ask anonymously.
pub(super) fn credentials(reference: &Reference) -> Result<Option<DockerCredential>, RegistryError> {
    let domain = reference.domain();
    let keys = match domain {
        "docker.io" => vec![DOCKER_HUB_KEY.to_owned(), domain.to_owned()],
        _ => vec![domain.to_owned(), format!("https://{domain}")],
    };
    for key in keys {
        match docker_credential::get_credential(&key) {
            Ok(credential) => return Ok(Some(credential)),
            // A helper that knows no credentials fails like one that does not work, but says so.
            Err(CredentialRetrievalError::HelperFailure { stdout, .. }) if stdout.contains("not found") => {}
            Err(
                CredentialRetrievalError::NoCredentialConfigured
                | CredentialRetrievalError::ConfigNotFound
                | CredentialRetrievalError::ConfigReadError,
            ) => {}
            Err(error) => {
                let reason = excerpt(&error.to_string());
                return Err(RegistryError::Credentials { registry: domain.to_owned(), reason });
            }
        }
    }
    Ok(None)
}

/// The first challenge we can answer, a token before a password.
pub(super) fn challenge(headers: &[&str]) -> Option<Challenge> {
    let challenges = || headers.iter().filter_map(|header| http_auth::parse_challenges(header).ok()).flatten();
    let bearer =
        challenges().filter(|challenge| challenge.scheme.eq_ignore_ascii_case("bearer")).find_map(|challenge| {
            let param = |name: &str| {
                let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.to_unescaped())
            };
            Some(Challenge::Bearer { realm: param("realm")?, service: param("service"), scope: param("scope") })
        });
    let basic = || challenges().any(|challenge| challenge.scheme.eq_ignore_ascii_case("basic"));
    bearer.or_else(|| basic().then_some(Challenge::Basic))
}

/// How to get the token that a challenge asks for. `None` if the realm is no place to send credentials to.
pub(super) fn token_request(
    reference: &Reference,
    realm: &str,
    service: Option<&str>,
    scope: Option<&str>,
    credential: Option<&DockerCredential>,
) -> Option<TokenRequest> {
    let mut url = Url::parse(realm).ok()?;
    if url.scheme() != "https" && !(url.scheme() == "http" && reference.is_loopback()) {
        return None;
    }
    let pull = format!("repository:{}:pull", reference.repository());
    let scope = scope.unwrap_or(&pull);
    let mut query = vec![("scope", scope)];
    query.extend(service.map(|service| ("service", service)));
    if let Some(DockerCredential::IdentityToken(token)) = credential {
        query.extend([("grant_type", "refresh_token"), ("refresh_token", token), ("client_id", CLIENT_ID)]);
        let form = Url::parse_with_params("http://form/", &query).ok()?.query()?.to_owned();
        return Some(TokenRequest { url, form: Some(form), basic: None });
    }
    url.query_pairs_mut().extend_pairs(&query);
    let basic = match credential {
        Some(DockerCredential::UsernamePassword(user, password)) => Some((user.clone(), password.clone())),
        _ => None,
    };
    Some(TokenRequest { url, form: None, basic })
}

/// The token in a realm's answer.
pub(super) fn token(answer: &[u8]) -> Option<Authorization> {
    let answer: TokenAnswer = serde_json::from_slice(answer).ok()?;
    answer.token.or(answer.access_token).filter(|token| !token.is_empty()).map(Authorization::Bearer)
}
