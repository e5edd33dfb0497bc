//! Requests to one registry: the login it asks for, answers of bounded length, and errors that say what to do.
//!
//! State: the authorization that the registry accepted last, shared by all requests of a pull.

use std::time::Duration;

use docker_credential::DockerCredential;
use reqwest::header::{HeaderName, WWW_AUTHENTICATE};
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::super::excerpt::{excerpt, excerpt_bytes};
use super::super::manifest;
use super::super::reference::Reference;
use super::auth::{self, Authorization, Challenge};
use super::error::RegistryError;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// A connection on which nothing comes for so long is dead.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
/// Most bytes read of a token or of an error.
const ANSWER_MAX_BYTES: u64 = 256 * 1024;

/// Requests to one registry.
pub(super) struct Client {
    http: reqwest::Client,
    reference: Reference,
    authorization: Mutex<Option<Authorization>>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<ErrorEntry>,
}

#[derive(Deserialize)]
struct ErrorEntry {
    #[serde(default)]
    code: String,
    #[serde(default)]
    message: String,
}

impl Client {
    pub(super) fn new(reference: &Reference) -> Result<Self, RegistryError> {
        // A second installation fails, and changes nothing.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let builder = reqwest::Client::builder()
            .user_agent(concat!("bulkhead/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIMEOUT)
            .read_timeout(READ_TIMEOUT);
        let builder = if reference.is_loopback() {
            // No TLS, so no certificates of the system are needed.
            builder.no_proxy().tls_certs_only([])
        } else {
            // Also for redirects and tokens.
            builder.https_only(true)
        };
        let http = builder.build();
        let http = http.map_err(|error| RegistryError::unreachable(reference.domain().to_owned(), &error))?;
        Ok(Self { http, reference: reference.clone(), authorization: Mutex::new(None) })
    }

    pub(super) fn registry(&self) -> String {
        self.reference.domain().to_owned()
    }

    /// Asks for `what` of the image's repository, `manifests/…` or `blobs/…`, logging in if the registry wants it.
    pub(super) async fn get(&self, what: &str, headers: &[(HeaderName, String)]) -> Result<Response, RegistryError> {
        let known = self.authorization.lock().await.clone();
        let mut response = self.send(self.request(what, headers, known.as_ref())).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            let authorization = self.log_in(&response).await?;
            response = self.send(self.request(what, headers, Some(&authorization))).await?;
            *self.authorization.lock().await = Some(authorization);
        }
        if response.status().is_success() || response.status() == StatusCode::RANGE_NOT_SATISFIABLE {
            return Ok(response);
        }
        Err(self.refused(what, response).await)
    }

    /// Reads an answer of at most `limit` bytes.
    pub(super) async fn body(
        &self,
        what: &'static str,
        mut response: Response,
        limit: u64,
    ) -> Result<Vec<u8>, RegistryError> {
        let mut body = Vec::new();
        loop {
            let chunk = response.chunk().await.map_err(|error| self.unreachable(&error))?;
            let Some(chunk) = chunk else { return Ok(body) };
            manifest::check_size(what, (body.len() + chunk.len()) as u64, limit)?;
            body.extend_from_slice(&chunk);
        }
    }

    pub(super) fn unreachable(&self, error: &reqwest::Error) -> RegistryError {
        RegistryError::unreachable(self.registry(), error)
    }

    fn request(
        &self,
        what: &str,
        headers: &[(HeaderName, String)],
        authorization: Option<&Authorization>,
    ) -> RequestBuilder {
        let scheme = if self.reference.is_loopback() { "http" } else { "https" };
        let url = format!("{scheme}://{}/v2/{}/{what}", self.reference.api_host(), self.reference.repository());
        let mut request = self.http.get(url);
        for (name, value) in headers {
            request = request.header(name, value);
        }
        match authorization {
            Some(Authorization::Basic(user, password)) => request.basic_auth(user, Some(password)),
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
            None => request,
        }
    }

    async fn send(&self, request: RequestBuilder) -> Result<Response, RegistryError> {
        request.send().await.map_err(|error| self.unreachable(&error))
    }

    /// Answers the challenge of a 401.
    async fn log_in(&self, response: &Response) -> Result<Authorization, RegistryError> {
        let headers = response.headers().get_all(WWW_AUTHENTICATE);
        let headers: Vec<&str> = headers.iter().filter_map(|header| header.to_str().ok()).collect();
        let challenge =
            auth::challenge(&headers).ok_or_else(|| self.denied("it asks for a login of an unknown kind"))?;
        let reference = self.reference.clone();
        // A credential helper is a program that may take its time.
        let credential = tokio::task::spawn_blocking(move || auth::credentials(&reference));
        let credential = credential.await.map_err(|_| RegistryError::Interrupted)??;
        match challenge {
            Challenge::Bearer { realm, service, scope } => {
                self.fetch_token(&realm, service.as_deref(), scope.as_deref(), credential.as_ref()).await
            }
            Challenge::Basic => match credential {
                Some(DockerCredential::UsernamePassword(user, password)) => Ok(Authorization::Basic(user, password)),
                _ => Err(self.denied("it asks for a user name and a password")),
            },
        }
    }

    async fn fetch_token(
        &self,
        realm: &str,
        service: Option<&str>,
        scope: Option<&str>,
        credential: Option<&DockerCredential>,
    ) -> Result<Authorization, RegistryError> {
        let wanted = auth::token_request(&self.reference, realm, service, scope, credential)
            .ok_or_else(|| self.denied(&format!("it wants a login at `{}`, which is not safe", excerpt(realm))))?;
        let request = match wanted.form {
            Some(form) => {
                let kind = (reqwest::header::CONTENT_TYPE, "application/x-www-form-urlencoded");
                self.http.post(wanted.url).header(kind.0, kind.1).body(form)
            }
            None => self.http.get(wanted.url),
        };
        let request = match wanted.basic {
            Some((user, password)) => request.basic_auth(user, Some(password)),
            None => request,
        };
        let response = self.send(request).await?;
        let status = response.status();
        if !status.is_success() {
            return Err(match status {
                StatusCode::TOO_MANY_REQUESTS => self.refused("token", response).await,
                _ => self.denied(&reason(response).await),
            });
        }
        let answer = self.body("token", response, ANSWER_MAX_BYTES).await?;
        auth::token(&answer).ok_or_else(|| self.denied("its login service sent no token"))
    }

    /// Turns an answer that is no success into an error.
    async fn refused(&self, what: &str, response: Response) -> RegistryError {
        let status = response.status();
        let registry = self.registry();
        let reason = reason(response).await;
        match (status, what.split_once('/')) {
            (StatusCode::NOT_FOUND, Some(("manifests", wanted))) => {
                let repository = self.reference.repository().to_owned();
                RegistryError::NotFound { registry, repository, wanted: wanted.to_owned() }
            }
            (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => self.denied(&reason),
            (StatusCode::TOO_MANY_REQUESTS, _) => RegistryError::TooManyRequests { registry, reason },
            (status, _) => RegistryError::Status { registry, status: status.as_u16(), what: what.to_owned(), reason },
        }
    }

    fn denied(&self, reason: &str) -> RegistryError {
        RegistryError::Denied {
            registry: self.registry(),
            repository: self.reference.repository().to_owned(),
            reason: reason.to_owned(),
        }
    }
}

/// What the registry says of an error (OCI distribution-spec 1.1, "Error Codes"), shortened.
async fn reason(mut response: Response) -> String {
    let status = response.status();
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > ANSWER_MAX_BYTES {
            break;
        }
    }
    let said = serde_json::from_slice::<Errors>(&body).ok().and_then(|errors| errors.errors.into_iter().next());
    let text = match said {
        Some(ErrorEntry { code, message }) if message.is_empty() => excerpt(&code),
        Some(ErrorEntry { message, .. }) => excerpt(&message),
        None => excerpt_bytes(body.trim_ascii()),
    };
    if text.is_empty() { status.canonical_reason().unwrap_or("no reason given").to_owned() } else { text }
}
