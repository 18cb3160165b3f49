//! The agent: `Op` in, `Event` out. `turn` decides (pure), `session` carries out, `approval` is the table of modes,
//! `rules` what the user set over it, `repair` how a small model mends, `transcript` the log on disk, `conversation` what a
//! log adds up to, `resume` how one is taken up again, `store` which there are, `asked` what it takes to run one again,
//! `compaction` how a history is shortened, `opening` and `memory` the first message, `answer` an answer in a given form,
//! `live_values` the workspace as the masks of calls see it, `prompts` all wording. Front ends import `agent::protocol` and nothing else of this.

pub mod answer;
pub mod approval;
pub mod asked;
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
pub mod rules;
mod session;
pub mod store;
mod surroundings;
pub mod transcript;
mod turn;

pub use live_values::WorkspaceValues;
pub use prompts::{until_again, until_request};
pub use resume::{Resumed, resume};
pub use rules::{RuleSource, Rules};
pub use session::{Limits, Session, SessionOptions, run_check};
pub use store::{Listed, ResumeError, Which, list};
pub use surroundings::{offered_tools, opening_messages};
