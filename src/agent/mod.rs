//! The agent: `Op` in, `Event` out. `turn` decides (pure), `session` carries out, `approval` is the table of modes,
//! `repair` how a small model mends, `transcript` the log on disk, `conversation` what a log adds up to, `resume` how
//! one is taken up again, `compaction` how a history is shortened, `opening` and `memory` the first message,
//! `live_values` the workspace as the masks of calls see it, `prompts` all wording. Front ends import `agent::protocol` and nothing else of this.

pub mod approval;
mod compaction;
pub mod conversation;
mod fit;
mod live_values;
mod memory;
mod nudge;
mod opening;
mod prompts;
pub mod protocol;
mod repair;
pub mod resume;
mod session;
mod surroundings;
pub mod transcript;
mod turn;

pub use live_values::WorkspaceValues;
pub use prompts::{until_again, until_request};
pub use resume::{Listed, ResumeError, Resumed, Which, list, resume};
pub use session::{Limits, Session, SessionOptions, run_check};
pub use surroundings::{offered_tools, opening_messages};
