//! A container in a sandbox, from its image's layers to its first process.

use bulkhead_protocols::agent::{CreateContainerRequest, ExecRequest, File, Overlay, Rootfs, rootfs, start_response};
use bulkhead_protocols::wire::{INIT_PROCESS, SCRATCH_SERIAL};

use super::Sandbox;
use super::error::SandboxError;
use super::process::{ExecFailure, Process, Started};
use super::start::SandboxConfig;
use crate::stdio::{StreamSet, Streams};

/// A container to be made.
#[derive(Clone, Debug)]
pub struct ContainerConfig {
    /// `[A-Za-z0-9_.-]{1,128}`, unique in the sandbox.
    pub id: String,
    /// OCI `config.json`; see [`crate::spec`].
    pub spec_json: Vec<u8>,
    /// Indexes into [`SandboxConfig::layers`], bottom first.
    pub layers: Vec<usize>,
    /// The rootfs refuses writes.
    pub read_only: bool,
    /// `name|uid[:group|gid]` in the container's own files; empty: what the spec says.
    pub user: String,
    /// Streams of the first process.
    pub streams: StreamSet,
    /// Make the working directory if it is missing.
    pub create_cwd: bool,
    /// Files written into the rootfs.
    pub files: Vec<ContainerFile>,
}

/// A file the agent writes into a container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContainerFile {
    /// Absolute path in the container.
    pub path: &'static str,
    /// What it holds.
    pub contents: String,
}

impl ContainerConfig {
    fn to_message(&self) -> CreateContainerRequest {
        // An overlay names its layers from the top.
        let lower = self.layers.iter().rev().map(|index| SandboxConfig::layer_path(*index)).collect();
        let overlay = Overlay { lower, scratch_serial: SCRATCH_SERIAL.to_owned(), ..Default::default() };
        let rootfs =
            Rootfs { kind: Some(rootfs::Kind::Overlay(overlay)), read_only: self.read_only, ..Default::default() };
        CreateContainerRequest {
            container_id: self.id.clone(),
            spec_json: self.spec_json.clone(),
            rootfs: Some(rootfs).into(),
            user: self.user.clone(),
            stdio: Some(self.streams.to_message()).into(),
            create_cwd: self.create_cwd,
            files: self.files.iter().map(file_message).collect(),
            ..Default::default()
        }
    }
}

fn file_message(file: &ContainerFile) -> File {
    let contents = file.contents.clone().into_bytes();
    File { path: file.path.to_owned(), contents, mode: 0o644, ..Default::default() }
}

/// A container whose first process waits to be started.
#[derive(Debug)]
pub struct Container<'sandbox> {
    sandbox: &'sandbox Sandbox,
    id: String,
}

impl Sandbox {
    /// Opens the streams of a container's first process, then makes the container.
    ///
    /// # Errors
    /// The agent refuses (its words say what is wrong), or the guest has ended.
    pub async fn create_container(&self, config: &ContainerConfig) -> Result<(Container<'_>, Streams), SandboxError> {
        let streams = self.open_streams(&config.id, INIT_PROCESS, config.streams).await?;
        self.call(self.agent.create_container(&config.to_message())).await?;
        Ok((Container { sandbox: self, id: config.id.clone() }, streams))
    }

    async fn open_streams(&self, container: &str, process: &str, set: StreamSet) -> Result<Streams, SandboxError> {
        match Streams::open(&self.vsock, container, process, set).await {
            Ok(streams) => Ok(streams),
            Err(error) => match tokio::time::timeout(super::EXIT_GRACE, self.ended()).await {
                Ok(end) => Err(SandboxError::GuestEnded(end)),
                Err(_) => Err(error.into()),
            },
        }
    }
}

impl<'sandbox> Container<'sandbox> {
    /// Lets the first process execute its program.
    ///
    /// # Errors
    /// The agent refuses, or the guest has ended. A program that cannot be executed is [`Started::Failed`].
    pub async fn start(&self) -> Result<Started<'sandbox>, SandboxError> {
        let answer = self.sandbox.call(self.sandbox.agent.start_container(&self.id)).await?;
        Ok(self.started(INIT_PROCESS, answer.result))
    }

    /// Opens the streams of a further process, then makes and starts it.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub async fn exec(
        &self,
        process_id: &str,
        process_json: Vec<u8>,
        user: &str,
        set: StreamSet,
    ) -> Result<(Started<'sandbox>, Streams), SandboxError> {
        let streams = self.sandbox.open_streams(&self.id, process_id, set).await?;
        let request = ExecRequest {
            container_id: self.id.clone(),
            process_id: process_id.to_owned(),
            process_json,
            user: user.to_owned(),
            stdio: Some(set.to_message()).into(),
            ..Default::default()
        };
        let answer = self.sandbox.call(self.sandbox.agent.exec(&request)).await?;
        Ok((self.started(process_id, answer.result), streams))
    }

    /// Kills what is left of the container and forgets it.
    ///
    /// # Errors
    /// The guest has ended or does not answer.
    pub async fn delete(self) -> Result<(), SandboxError> {
        self.sandbox.call(self.sandbox.agent.delete_container(&self.id)).await
    }

    fn started(&self, process_id: &str, result: Option<start_response::Result>) -> Started<'sandbox> {
        match result {
            Some(start_response::Result::Failure(failure)) => Started::Failed(ExecFailure::from_message(failure)),
            // The agent's pid is of interest to itself only; an answer without one still means that it runs.
            Some(_) | None => Started::Running(Process::new(self.sandbox, &self.id, process_id)),
        }
    }
}
