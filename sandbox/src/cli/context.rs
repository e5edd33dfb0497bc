//! What every command needs: the directories, swept.

use anyhow::Context as _;
use sandbox::accel::Prober;
use sandbox::image::Images;
use sandbox::paths::Paths;
use sandbox::runtime_dir::RuntimeRoot;

/// Where things are, and the runtime directory without what dead sandboxes left.
pub(crate) struct HostContext {
    pub(crate) paths: Paths,
    pub(crate) root: RuntimeRoot,
}

impl HostContext {
    pub(crate) fn open() -> anyhow::Result<Self> {
        let paths = Paths::from_environment()?;
        let root = RuntimeRoot::open(&paths.run)?;
        root.sweep().context("cannot remove what an earlier sandbox left")?;
        Ok(Self { paths, root })
    }

    pub(crate) fn images(&self) -> anyhow::Result<Images> {
        Ok(Images::open(&self.paths.data)?)
    }

    pub(crate) fn prober(&self) -> anyhow::Result<Prober> {
        Ok(Prober::new(&self.paths.asset("the vmm", "vmm")?, &self.paths.run))
    }
}
