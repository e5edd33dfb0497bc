//! Why a request was not carried out, as the host sees it: a ttrpc status.

use ttrpc::Code;

/// The answer to a request that failed.
#[derive(Debug)]
pub(crate) struct Refusal {
    code: Code,
    message: String,
}

impl Refusal {
    /// The request is wrong; the message names the field.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self { code: Code::INVALID_ARGUMENT, message: message.into() }
    }

    /// No such container or process.
    pub(crate) fn not_found(message: impl Into<String>) -> Self {
        Self { code: Code::NOT_FOUND, message: message.into() }
    }

    /// The id is taken.
    pub(crate) fn exists(message: impl Into<String>) -> Self {
        Self { code: Code::ALREADY_EXISTS, message: message.into() }
    }

    /// The container or process is not in the state for this.
    pub(crate) fn precondition(message: impl Into<String>) -> Self {
        Self { code: Code::FAILED_PRECONDITION, message: message.into() }
    }

    /// A bound was reached.
    pub(crate) fn exhausted(message: impl Into<String>) -> Self {
        Self { code: Code::RESOURCE_EXHAUSTED, message: message.into() }
    }

    /// The agent or the kernel is at fault.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self { code: Code::INTERNAL, message: message.into() }
    }
}

impl std::fmt::Display for Refusal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

impl From<Refusal> for ttrpc::Error {
    fn from(refusal: Refusal) -> Self {
        ttrpc::Error::RpcStatus(ttrpc::get_status(refusal.code, refusal.message))
    }
}
