//! What the server serves: its models and how much they hold, as vLLM, SGLang and llama-server say it, each in its way.

use super::failure::Failure;
use super::link::{Link, Stopped};
use crate::chat::ChatFormat;
use serde_json::Value;

/// Context where nobody says one.
const CONTEXT: usize = 32_768;

/// A model that a server offers.
#[derive(Debug, Clone, PartialEq)]
pub struct Served {
    pub name: String,
    /// Tokens of context.
    pub context: Option<usize>,
    /// Weights in billions; `0.0` where neither the server nor the name says so.
    pub billions: f64,
    pub(super) server: Server,
}

/// Which program serves, as its list of models says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Server {
    Llama,
    Vllm,
    Sglang,
    Other,
}

impl Server {
    fn read(owner: Option<&str>) -> Self {
        match owner {
            Some("llamacpp") => Server::Llama,
            Some("vllm") => Server::Vllm,
            Some("sglang") => Server::Sglang,
            _ => Server::Other,
        }
    }
}

impl Served {
    fn read(entry: &Value) -> Option<Self> {
        let name = entry.get("id")?.as_str()?.to_string();
        let number = |path: &str| entry.pointer(path).and_then(Value::as_f64);
        let tokens = ["/max_model_len", "/meta/n_ctx", "/context_length"].into_iter().find_map(number);
        Some(Self {
            context: tokens.filter(|tokens| *tokens >= 1.0).map(|tokens| tokens as usize),
            billions: number("/meta/n_params").map_or_else(|| billions(&name), |weights| weights / 1e9),
            server: Server::read(entry.get("owned_by").and_then(Value::as_str)),
            name,
        })
    }

    fn named(name: &str) -> Self {
        Self { name: name.into(), context: None, billions: billions(name), server: Server::Other }
    }
}

/// All models; none where the server has no such list.
pub(super) fn list(link: &mut Link<'_>) -> Result<Vec<Served>, Stopped> {
    let url = format!("{}/models", link.address.base());
    let value = match link.get_json(&url, true) {
        Err(Stopped::Failed(failure)) if failure.nowhere => return Ok(Vec::new()),
        other => other?,
    };
    match value.get("data").and_then(Value::as_array) {
        Some(models) => Ok(models.iter().filter_map(Served::read).collect()),
        None => Err(Stopped::Failed(
            Failure::garbage("its list of models has no \"data\"", &value.to_string(), link.key)
                .at(link.address, &url),
        )),
    }
}

/// The model to speak with, how much it holds, and the format its calls come in where the server leaves them in the
/// text. `wanted` is sent as it is, listed or not: a gateway may know more than it lists.
pub(super) fn choose(
    link: &mut Link<'_>,
    wanted: Option<&str>,
    context: Option<usize>,
) -> Result<(Served, usize, ChatFormat), Stopped> {
    let mut models = list(link)?;
    let at = match wanted {
        Some(name) => models.iter().position(|model| model.name == name),
        None => (!models.is_empty()).then_some(0),
    };
    let mut model = match (at, wanted) {
        (Some(at), _) => models.swap_remove(at),
        (None, Some(name)) => Served::named(name),
        (None, None) => {
            let none = Failure::no_api("the server lists no model");
            let failure = Failure { hint: "name the model with -m NAME".into(), ..none };
            return Err(Stopped::Failed(
                failure.at(link.address, &format!("{}/models", link.address.base())),
            ));
        }
    };
    let mut template = None;
    if model.server == Server::Llama || (model.context.is_none() && context.is_none()) {
        // A llama-server tells it at its root; nobody else needs to.
        match link.get_json(&format!("{}/props", link.address.root()), false) {
            Ok(props) => {
                let tokens = props.pointer("/default_generation_settings/n_ctx").or(props.get("n_ctx"));
                let tokens = tokens.and_then(Value::as_u64).filter(|tokens| *tokens > 0);
                model.context = tokens.map(|tokens| tokens as usize).or(model.context);
                template = props.get("chat_template").and_then(Value::as_str).map(str::to_string);
            }
            Err(Stopped::Cancelled) => return Err(Stopped::Cancelled),
            Err(Stopped::Failed(_)) => {}
        }
    }
    let format = ChatFormat::detect(template.as_deref(), &model.name).unwrap_or(ChatFormat::Qwen3Coder);
    let context = context.or(model.context).unwrap_or(CONTEXT);
    Ok((model, context, format))
}

/// Billions of weights by a name: `Qwen2.5-Coder-1.5B` has 1.5, `Qwen3-Coder-480B-A35B` 480.
fn billions(name: &str) -> f64 {
    let words = name.split(|c: char| !c.is_ascii_alphanumeric() && c != '.');
    let number = |word: &str| word.strip_suffix(['b', 'B'])?.parse::<f64>().ok();
    words.filter_map(number).find(|billions| (0.1..10_000.0).contains(billions)).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_model_by_what_each_server_says_of_it() {
        let vllm = json!({"id": "Qwen/Qwen3-Coder-480B-A35B-Instruct-FP8", "owned_by": "vllm", "max_model_len": 131072});
        let served = Served::read(&vllm).unwrap();
        assert_eq!((served.context, served.billions, served.server), (Some(131_072), 480.0, Server::Vllm));
        let llama = json!({"id": "x.gguf", "owned_by": "llamacpp", "meta": {"n_ctx_train": 32768, "n_params": 1.5e9}});
        let served = Served::read(&llama).unwrap();
        assert_eq!((served.context, served.billions, served.server), (None, 1.5, Server::Llama));
        assert_eq!(Served::read(&json!({"name": "x"})), None);
    }

    #[test]
    fn sizes_by_name() {
        for (name, size) in [
            ("qwen2.5-coder-1.5b-instruct-q4_k_m.gguf", 1.5),
            ("Qwen3-Coder-30B-A3B", 30.0),
            ("gpt-4b-turbo", 4.0),
            ("default", 0.0),
            ("b", 0.0),
        ] {
            assert_eq!(billions(name), size, "{name}");
        }
    }
}
