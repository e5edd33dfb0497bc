//! Ids of containers and processes.

use crate::server::Refusal;

/// Longest id in bytes.
const ID_MAX: usize = 128;

/// Whether `id` matches `[A-Za-z0-9_.-]{1,128}` and is neither `.` nor `..`, since ids become names of directories.
pub(crate) fn is_valid(id: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
    (1..=ID_MAX).contains(&id.len()) && id.bytes().all(allowed) && id != "." && id != ".."
}

/// Refuses an id that is not valid, naming the field.
pub(crate) fn check(field: &str, id: &str) -> Result<(), Refusal> {
    if is_valid(id) {
        return Ok(());
    }
    let shown: String = id.chars().take(ID_MAX).collect();
    Err(Refusal::invalid(format!("{field} {shown:?} does not match [A-Za-z0-9_.-]{{1,{ID_MAX}}}")))
}
