//! The last steps before execve: who the process is, what it may do, and finding its program as that user.

use std::convert::Infallible;
use std::ffi::{CString, NulError};

use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use super::capabilities;
use super::report::{Doing, Failure, FailureKind, reason};
use super::user::{self, Identity};
use crate::plan::ProcessPlan;
use crate::sys::{execve, fds, signal};

/// Where programs are looked for if the environment has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Drops privileges and executes the program.
pub(super) fn execute(plan: &ProcessPlan, identity: &Identity) -> Result<Infallible, Failure> {
    let environment = environment(plan, identity)?;
    let arguments = c_strings(&plan.args).map_err(|_| Failure::invalid("process.args holds a NUL byte"))?;
    capabilities::limit_bounding_set(plan.capabilities.bounding)?;
    user::become_user(identity)?;
    capabilities::apply(&plan.capabilities)?;
    if plan.no_new_privileges {
        rustix::thread::set_no_new_privs(true).doing(|| "set no_new_privs".into())?;
    }
    fds::close_on_exec_from(3).doing(|| "close descriptors".into())?;
    signal::restore_sigpipe();
    let path = plan.env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or(DEFAULT_PATH);
    Err(run_program(&plan.args, path, &arguments, &environment))
}

/// The environment with HOME, and each name once: the last assignment counts, as a shell would have it.
fn environment(plan: &ProcessPlan, identity: &Identity) -> Result<Vec<CString>, Failure> {
    let mut entries = plan.env.clone();
    if !entries.iter().any(|entry| entry.starts_with("HOME=")) {
        entries.push(format!("HOME={}", identity.home));
    }
    c_strings(&entries).map_err(|_| Failure::invalid("process.env holds a NUL byte"))
}

fn c_strings(strings: &[String]) -> Result<Vec<CString>, NulError> {
    strings.iter().map(|string| CString::new(string.as_str())).collect()
}

/// Executes `args[0]`; returns only why it could not be.
fn run_program(args: &[String], path: &str, arguments: &[CString], environment: &[CString]) -> Failure {
    let name = args.first().map(String::as_str).unwrap_or_default();
    if name.is_empty() {
        return not_found(name, "executable file not found in $PATH");
    }
    if name.contains('/') {
        let error = try_program(name, arguments, environment);
        return explain(name, name, error);
    }
    let mut denied = None;
    for directory in path.split(':') {
        let directory = if directory.is_empty() { "." } else { directory };
        let candidate = format!("{directory}/{name}");
        match try_program(&candidate, arguments, environment) {
            Errno::NOENT | Errno::NOTDIR if !exists(&candidate) => {}
            Errno::ACCESS if !is_executable_file(&candidate) => denied = Some(candidate),
            error => return explain(name, &candidate, error),
        }
    }
    match denied {
        Some(candidate) => explain(name, &candidate, Errno::ACCESS),
        None => not_found(name, "executable file not found in $PATH"),
    }
}

fn try_program(program: &str, arguments: &[CString], environment: &[CString]) -> Errno {
    match CString::new(program) {
        Ok(program) => execve::execve(&program, arguments, environment),
        Err(_) => Errno::NOENT,
    }
}

fn explain(name: &str, program: &str, error: Errno) -> Failure {
    let text = reason(&error.into());
    match error {
        Errno::NOENT | Errno::NOTDIR if !exists(program) => not_found(name, &format!("stat {program}: {text}")),
        // The file is there, so it is the interpreter of a script or a dynamic program that is not.
        Errno::NOENT | Errno::NOTDIR => {
            not_found(name, &format!("{program} is there, but the interpreter or loader that it names is not"))
        }
        Errno::ACCESS if is_directory(program) => not_executable(name, "is a directory"),
        Errno::NOEXEC => not_executable(name, "exec format error"),
        _ => not_executable(name, &text),
    }
}

fn not_found(name: &str, why: &str) -> Failure {
    Failure::new(FailureKind::NotFound, format!("exec: {name:?}: {why}"))
}

fn not_executable(name: &str, why: &str) -> Failure {
    Failure::new(FailureKind::NotExecutable, format!("exec: {name:?}: {why}"))
}

fn exists(path: &str) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::empty()).is_ok()
}

fn is_directory(path: &str) -> bool {
    rustix::fs::statat(CWD, path, AtFlags::empty())
        .is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Directory)
}

fn is_executable_file(path: &str) -> bool {
    !is_directory(path) && rustix::fs::accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure_of(args: &[&str], path: &str) -> Failure {
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
        let arguments = c_strings(&args).unwrap();
        run_program(&args, path, &arguments, &[])
    }

    fn directory(name: &str) -> std::path::PathBuf {
        let path = std::env::temp_dir().join(format!("bulkhead-exec-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        path
    }

    #[test]
    fn what_is_not_in_path_is_not_found() {
        let failure = failure_of(&["no-such-program"], "/usr/bin:/bin");
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert_eq!(failure.message, "exec: \"no-such-program\": executable file not found in $PATH");
    }

    #[test]
    fn a_missing_path_names_the_file() {
        let failure = failure_of(&["/no/such"], "");
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert_eq!(failure.message, "exec: \"/no/such\": stat /no/such: no such file or directory");
    }

    #[test]
    fn a_directory_is_not_executable() {
        let failure = failure_of(&["/usr"], "");
        assert_eq!(failure, Failure::new(FailureKind::NotExecutable, "exec: \"/usr\": is a directory"));
    }

    #[test]
    fn a_missing_interpreter_is_not_found() {
        use std::os::unix::fs::PermissionsExt;
        let path = directory("interpreter");
        let script = path.join("script");
        std::fs::write(&script, "#!/no/such/interpreter\n").unwrap();
        std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
        let failure = failure_of(&["script"], path.to_str().unwrap());
        assert_eq!(failure.kind, FailureKind::NotFound);
        assert!(failure.message.contains("interpreter"), "{}", failure.message);
        std::fs::remove_dir_all(path).unwrap();
    }

    #[test]
    fn garbage_and_plain_files_are_not_executable() {
        use std::os::unix::fs::PermissionsExt;
        let path = directory("garbage");
        let file = path.join("data");
        std::fs::write(&file, "not a program").unwrap();
        let failure = failure_of(&["data"], path.to_str().unwrap());
        assert_eq!(failure, Failure::new(FailureKind::NotExecutable, "exec: \"data\": permission denied"));
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
        let failure = failure_of(&["data"], path.to_str().unwrap());
        assert_eq!(failure, Failure::new(FailureKind::NotExecutable, "exec: \"data\": exec format error"));
        std::fs::remove_dir_all(path).unwrap();
    }
}
