//! A small volume of a test's own: a tmpfs, which needs root.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Unmounted when dropped.
pub struct Volume {
    path: PathBuf,
}

impl Volume {
    /// A new, empty one; `size` is as `mount` takes it: 4k, 2m.
    pub fn mount(path: &Path, size: &str) -> Self {
        std::fs::create_dir(path).unwrap();
        run(
            "mount",
            &["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"],
            path,
        );
        Self {
            path: path.to_owned(),
        }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Changes a mount option: size=8m, ro.
    pub fn remount(&self, option: &str) {
        run("mount", &["-o", &format!("remount,{option}")], &self.path);
    }

    /// Leaves no byte free.
    pub fn fill(&self) {
        let mut filler = std::fs::File::create(self.path.join("filler")).unwrap();
        while filler.write_all(&[0; 4096]).is_ok() {}
    }
}

impl Drop for Volume {
    fn drop(&mut self) {
        run("umount", &[], &self.path);
    }
}

fn run(program: &str, arguments: &[&str], path: &Path) {
    let status = Command::new(program).args(arguments).arg(path).status();
    assert!(
        status.is_ok_and(|status| status.success()),
        "{program} {arguments:?} {}: these tests need root",
        path.display()
    );
}
