//! The helper's side of the reduced tier: Landlock over what a `Reach` names, for kernels or containers that give no
//! namespaces. It holds writing, cutting, making, removing, renaming, running and reading; modes, owners and times of
//! files that lie outside it does not hold. Sockets are the filter's (`confine`).

use super::init::{Failure, Step};
use super::reach::Reach;
use landlock::{
    ABI, Access, AccessFs, BitFlags, CompatLevel, Compatible, PathBeneath, PathFd, Ruleset, RulesetAttr,
    RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::ffi::OsString;
use std::path::Path;

/// What there must be: since this one a file outside cannot be cut short (Linux 6.2).
const LEAST: ABI = ABI::V3;
/// What is used where the kernel has it: device controls, signals and abstract sockets (Linux 6.12).
const MOST: ABI = ABI::V6;

/// Restricts this process and what it starts, for good.
pub fn restrict(reach: &Reach) -> Result<(), Failure> {
    let apply = || -> Result<RulesetStatus, RulesetError> {
        let read = AccessFs::from_read(MOST);
        // Devices are made by nobody.
        let write = AccessFs::from_all(MOST) & !(AccessFs::MakeChar | AccessFs::MakeBlock);
        let mut rules = Ruleset::default()
            .set_compatibility(CompatLevel::HardRequirement)
            .handle_access(AccessFs::from_all(LEAST))?
            .set_compatibility(CompatLevel::BestEffort)
            .handle_access(AccessFs::from_all(MOST))?
            .scope(Scope::from_all(MOST))?
            .create()?;
        for (paths, access) in [(&reach.readable, read), (&reach.writable, write)] {
            for rule in paths.iter().filter_map(|path| rule(path, access)) {
                rules = rules.add_rule(rule)?;
            }
        }
        Ok(rules.restrict_self()?.ruleset)
    };
    match apply().map_err(std::io::Error::other).step("restrict itself by Landlock")? {
        RulesetStatus::NotEnforced => Err(Failure::new(
            "restrict itself by Landlock, which this kernel lacks (Linux 6.2)",
            libc::ENOSYS,
        )),
        _ => Ok(()),
    }
}

/// `None` for what is not there: nobody can reach it then.
fn rule(path: &OsString, access: BitFlags<AccessFs>) -> Option<PathBeneath<PathFd>> {
    let is_directory = Path::new(path).symlink_metadata().ok()?.is_dir();
    let access = if is_directory { access } else { access & AccessFs::from_file(MOST) };
    Some(PathBeneath::new(PathFd::new(path).ok()?, access))
}
