//! Which repositories the user trusts: their real paths, one a line, in the state directory, where no repository can
//! write. What trust allows is said where it is asked for.

use std::io::Write;
use std::path::{Path, PathBuf};

const FILE: &str = "trusted";

/// The repository around `dir`: the first ancestor that holds `.git`, else `dir` itself; its real path.
pub fn repository_of(dir: &Path) -> PathBuf {
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_path_buf());
    dir.ancestors().find(|above| above.join(".git").exists()).unwrap_or(&dir).to_path_buf()
}

pub fn is_trusted(state: &Path, repository: &Path) -> bool {
    let known = std::fs::read_to_string(state.join(FILE)).unwrap_or_default();
    repository.to_str().is_some_and(|repository| known.lines().any(|line| line == repository))
}

/// Remembers it for good.
pub fn trust(state: &Path, repository: &Path) -> std::io::Result<()> {
    if is_trusted(state, repository) {
        return Ok(());
    }
    let name = repository.to_str().filter(|name| !name.contains('\n')).ok_or_else(|| {
        let problem = format!("the name of {} cannot be written down", repository.display());
        std::io::Error::new(std::io::ErrorKind::InvalidInput, problem)
    })?;
    std::fs::create_dir_all(state)?;
    let mut file = std::fs::File::options().append(true).create(true).open(state.join(FILE))?;
    file.write_all(format!("{name}\n").as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repository_is_trusted_as_a_whole_and_no_other_is() {
        let (state, files) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let top = files.path().canonicalize().unwrap();
        for directory in ["a/.git", "a/src", "ab"] {
            std::fs::create_dir_all(top.join(directory)).unwrap();
        }
        assert_eq!(repository_of(&files.path().join("a/src")), top.join("a"));
        assert_eq!(repository_of(&top.join("ab")), top.join("ab"));
        let store = state.path().join("qwright");
        assert!(!is_trusted(&store, &top.join("a")));
        trust(&store, &top.join("a")).unwrap();
        trust(&store, &top.join("a")).unwrap();
        assert!(is_trusted(&store, &top.join("a")) && !is_trusted(&store, &top.join("ab")));
        assert_eq!(std::fs::read_to_string(store.join(FILE)).unwrap().lines().count(), 1);
        assert!(trust(&store, Path::new("/a\nb")).is_err());
    }
}
