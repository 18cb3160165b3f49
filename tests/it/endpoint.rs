//! A model that a server runs: sessions against a small server in this process, and the binary with one. What the
//! server does is a function of the request; what the model saw is what the server was sent.

use crate::agent::Project;
use qwright::agent::Session;
use qwright::agent::protocol::{Ending, Event, Op, TurnOutcome};
use qwright::chat::{ChatFormat, Message, Role, ToolSpec};
use qwright::model::endpoint::{EndpointModel, EndpointOptions, Key, served};
use qwright::model::{Generated, Model, ModelError, ModelEvent, Request, Sampling, StopReason};
use qwright::workspace::Workspace;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// A request as the server read it.
#[derive(Debug, Clone)]
struct Asked {
    path: String,
    authorization: Option<String>,
    body: Value,
}

enum Reply {
    /// status, content type, further header lines, body; then the connection is closed.
    Whole(u16, &'static str, String, String),
    /// These events, and then nothing for as long as the other side waits.
    Hangs(String),
    /// As many bytes are promised as never come.
    CutOff(String),
    /// Not even HTTP.
    Closed,
}

struct Server {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Server {
    /// `chat` answers the n-th request for an answer, counted from 0; the list of models has one, of 8,192 tokens.
    fn start(chat: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let models = json!({"object": "list", "data": [{"id": "served/coder", "max_model_len": 8192}]});
        Self::with_models(models, chat)
    }

    fn with_models(models: Value, chat: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (seen, chat) = (asked.clone(), Arc::new(chat));
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let (seen, chat, models) = (seen.clone(), chat.clone(), models.clone());
                std::thread::spawn(move || serve(stream.unwrap(), &seen, &models, &*chat));
            }
        });
        Self { url, asked }
    }

    fn options(&self) -> EndpointOptions {
        EndpointOptions { pause: Duration::from_millis(1), ..EndpointOptions::new(&self.url) }
    }

    fn model(&self) -> EndpointModel {
        open(&self.options()).unwrap()
    }

    /// The requests for an answer.
    fn chats(&self) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.path == "/v1/chat/completions").cloned().collect()
    }

    fn session(&self, project: &Project) -> crate::agent::Running {
        let workspace = Workspace::open(project.files.path(), &[]).unwrap();
        let (ops, events) =
            Session::start(Box::new(self.model()), workspace, project.shell(), project.options.clone());
        crate::agent::Running { ops, events }
    }
}

fn serve(
    stream: TcpStream,
    seen: &Mutex<Vec<Asked>>,
    models: &Value,
    chat: &(dyn Fn(&Asked, usize) -> Reply + Send + Sync),
) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    let mut line = String::new();
    reader.read_line(&mut line).unwrap();
    let path = line.split(' ').nth(1).unwrap_or_default().to_string();
    let (mut length, mut authorization) = (0, None);
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header).unwrap_or(0) == 0 || header.trim().is_empty() {
            break;
        }
        let (name, value) = header.split_once(':').unwrap();
        match name.to_ascii_lowercase().as_str() {
            "content-length" => length = value.trim().parse().unwrap(),
            "authorization" => authorization = Some(value.trim().to_string()),
            _ => {}
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).unwrap();
    let asked = Asked { path, authorization, body: serde_json::from_slice(&body).unwrap_or_default() };
    let count = {
        let mut seen = seen.lock().unwrap();
        seen.push(asked.clone());
        seen.iter().filter(|asked| asked.path.ends_with("/chat/completions")).count()
    };
    let reply = match asked.path.as_str() {
        "/v1/models" => Reply::Whole(200, "application/json", String::new(), models.to_string()),
        "/v1/chat/completions" => chat(&asked, count - 1),
        _ => Reply::Whole(404, "application/json", String::new(), "{}".into()),
    };
    answer(stream, reply);
}

fn answer(mut stream: TcpStream, reply: Reply) {
    let stream_head = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n";
    match reply {
        Reply::Whole(status, kind, headers, body) => {
            let length = body.len();
            let head = format!(
                "HTTP/1.1 {status} X\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n{headers}\r\n"
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
        Reply::Hangs(events) => {
            let _ = stream.write_all(format!("{stream_head}\r\n{events}").as_bytes());
            // Until the other side hangs up.
            let _ = stream.read(&mut [0]);
        }
        Reply::CutOff(events) => {
            let _ =
                stream.write_all(format!("{stream_head}Content-Length: 100000\r\n\r\n{events}").as_bytes());
        }
        Reply::Closed => {}
    }
}

fn event(value: &Value) -> String {
    format!("data: {value}\n\n")
}

fn delta(delta: Value) -> String {
    event(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
}

/// The end of an answer: its reason, then the usage in a piece without choices.
fn end(reason: &str) -> String {
    let usage = json!({"prompt_tokens": 1000, "completion_tokens": 20, "prompt_tokens_details": {"cached_tokens": 600}});
    let reason = event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}));
    format!("{reason}{}data: [DONE]\n\n", event(&json!({"choices": [], "usage": usage})))
}

fn streamed(events: String) -> Reply {
    Reply::Whole(200, "text/event-stream", String::new(), events)
}

fn says(text: &str) -> Reply {
    let pieces: String = text.split_inclusive(' ').map(|piece| delta(json!({"content": piece}))).collect();
    streamed(pieces + &end("stop"))
}

/// A call, its arguments in pieces of seven bytes.
fn calls(name: &str, arguments: &Value) -> Reply {
    let head =
        json!({"index": 0, "id": "abc", "type": "function", "function": {"name": name, "arguments": ""}});
    let mut events =
        delta(json!({"role": "assistant", "content": null})) + &delta(json!({"tool_calls": [head]}));
    for piece in arguments.to_string().as_bytes().chunks(7) {
        let piece = String::from_utf8(piece.to_vec()).unwrap();
        events += &delta(json!({"tool_calls": [{"index": 0, "function": {"arguments": piece}}]}));
    }
    streamed(events + &end("tool_calls"))
}

fn fails(status: u16, message: &str) -> Reply {
    Reply::Whole(
        status,
        "application/json",
        String::new(),
        json!({"error": {"message": message}}).to_string(),
    )
}

fn open(options: &EndpointOptions) -> Result<EndpointModel, ModelError> {
    EndpointModel::open(options, &AtomicBool::new(false), &mut |_| {})
}

fn ask_with(
    model: &mut EndpointModel,
    tools: &[ToolSpec],
    cancel: &AtomicBool,
    on_event: &mut dyn FnMut(ModelEvent),
) -> Result<Generated, ModelError> {
    let request = Request {
        messages: &[Message::new(Role::User, "Hello?")],
        tools,
        sampling: Sampling { seed: 3, temperature: Some(0.7), max_tokens: 50 },
        must_call: None,
        words_only: false,
        values: None,
        aside: false,
        frame: None,
        cancel,
    };
    model.generate(request, on_event)
}

fn ask(model: &mut EndpointModel) -> (Result<Generated, ModelError>, Vec<ModelEvent>) {
    let mut events = Vec::new();
    let answer = ask_with(model, &[], &AtomicBool::new(false), &mut |event| events.push(event));
    (answer, events)
}

/// What a server that answers like this comes to.
#[track_caller]
fn failure(chat: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> (String, String, usize) {
    let server = Server::start(chat);
    match ask(&mut server.model()).0 {
        Err(ModelError::Unavailable { message, hint }) => {
            let asked = format!("{}/v1/chat/completions: ", server.url);
            (message.strip_prefix(&asked).unwrap_or(&message).to_string(), hint, server.chats().len())
        }
        other => panic!("{other:?}"),
    }
}

fn outcome(running: &crate::agent::Running, request: &str) -> TurnOutcome {
    running.send(Op::Submit { text: request.into() });
    running.until(|event| match event {
        Event::TurnFinished { outcome } => Some(outcome.clone()),
        _ => None,
    })
}

fn fixes(_: &Asked, nth: usize) -> Reply {
    match nth {
        0 => calls("read_file", &json!({"file_path": "src/add.sh"})),
        1 => calls(
            "edit",
            &json!({"file_path": "src/add.sh", "old_string": "$1 - $2", "new_string": "$1 + $2"}),
        ),
        2 => calls("run_shell_command", &json!({"command": "sh check.sh"})),
        _ => says("It adds now."),
    }
}

#[test]
fn a_session_with_calls_fixes_a_file() {
    let (project, server) = (Project::new(), Server::start(fixes));
    let running = server.session(&project);
    let outcome = outcome(&running, "Fix add");
    running.quit();
    assert_eq!((&outcome.ending, outcome.answer.as_str()), (&Ending::Done, "It adds now."));
    assert!(project.text("src/add.sh").contains('+'));
    assert_eq!((outcome.usage.prompt, outcome.usage.cached, outcome.usage.completion), (4000, 2400, 80));
    let chats = server.chats();
    let body = &chats[0].body;
    assert_eq!((&body["model"], &body["stream"]), (&json!("served/coder"), &json!(true)));
    assert_eq!(body["stream_options"], json!({"include_usage": true}));
    assert_eq!(body["tools"][0]["type"], "function");
    assert!(body.get("temperature").is_none() && body.get("tool_choice").is_none());
    assert_eq!(chats[0].authorization, None);
    // What was sent once is sent again as it was, and a result names its call.
    for pair in chats.windows(2) {
        let (before, after) = (&pair[0].body["messages"], &pair[1].body["messages"]);
        let before = before.as_array().unwrap();
        assert_eq!(before[..], after.as_array().unwrap()[..before.len()]);
    }
    let last = chats[3].body["messages"].as_array().unwrap();
    let roles: Vec<&str> = last.iter().map(|message| message["role"].as_str().unwrap()).collect();
    assert_eq!(roles, ["system", "user", "assistant", "tool", "assistant", "tool", "assistant", "tool"]);
    assert_eq!(last[4]["tool_calls"][0]["id"], last[5]["tool_call_id"]);
    assert_eq!(last[4]["tool_calls"][0]["function"]["name"], "edit");
}

#[test]
fn calls_that_the_server_leaves_in_the_text_are_read() {
    let (project, server) = (
        Project::new(),
        Server::start(|_, nth| match nth {
            0 => says(&crate::agent::call(
                "edit",
                &[("file_path", "src/add.sh"), ("old_string", "$1 - $2"), ("new_string", "$1 + $2")],
            )),
            _ => says("Done."),
        }),
    );
    let running = server.session(&project);
    assert_eq!(outcome(&running, "Fix add").ending, Ending::Done);
    running.quit();
    assert!(project.text("src/add.sh").contains('+'));
}

#[test]
fn thoughts_are_kept_apart_and_an_answer_in_one_piece_will_do() {
    let whole = json!({"choices": [{"finish_reason": "stop", "message":
        {"content": "Yes.", "reasoning_content": "Is it?"}}], "usage": {"prompt_tokens": 9, "completion_tokens": 4}});
    let server =
        Server::start(move |_, _| Reply::Whole(200, "application/json", String::new(), whole.to_string()));
    let (answer, events) = ask(&mut server.model());
    let answer = answer.unwrap();
    assert_eq!(
        (answer.message.content.as_str(), answer.message.reasoning.as_deref()),
        ("Yes.", Some("Is it?"))
    );
    assert_eq!((answer.usage.prompt, answer.usage.completion, answer.stop), (9, 4, StopReason::End));
    assert!(events.contains(&ModelEvent::Thinking("Is it?".into())));
    let sent = &server.chats()[0].body;
    assert_eq!(
        (&sent["temperature"], &sent["seed"], &sent["max_tokens"]),
        (&json!(0.7), &json!(3), &json!(50))
    );
}

#[test]
fn a_busy_server_is_asked_again_and_the_user_told() {
    let server = Server::start(|_, nth| match nth {
        0 => Reply::Whole(
            429,
            "application/json",
            "Retry-After: 0\r\n".into(),
            r#"{"error": {"message": "busy"}}"#.into(),
        ),
        1 => Reply::Closed,
        2 => streamed(delta(json!({"role": "assistant", "content": ""}))),
        _ => says("Here I am."),
    });
    let (answer, events) = ask(&mut server.model());
    assert_eq!(answer.unwrap().message.content, "Here I am.");
    let notes = events.iter().filter_map(|event| match event {
        ModelEvent::Note(note) => Some(note.as_str()),
        _ => None,
    });
    let notes: Vec<&str> = notes.collect();
    assert_eq!(notes.len(), 3, "{notes:?}");
    assert!(notes[0].contains("status 429: busy; again in 0.0 s (try 2 of 6)"), "{notes:?}");
    assert_eq!(server.chats().len(), 4);
}

#[test]
fn a_server_that_stays_broken_is_given_up() {
    let (message, hint, asked) = failure(|_, _| fails(500, "out of memory\nat 0x5"));
    assert_eq!((message.as_str(), asked), ("status 500: out of memory (6 tries)", 6));
    assert!(hint.contains("log"), "{hint}");
    // One that wants to be left alone for long is.
    let (message, _, asked) =
        failure(|_, _| Reply::Whole(429, "text/plain", "Retry-After: 900\r\n".into(), "later".into()));
    assert_eq!((message.as_str(), asked), ("status 429: later (it asks for 900 s of patience)", 1));
}

#[test]
fn what_is_no_answer_is_said_and_not_asked_for_again() {
    let whole = |kind: &'static str, body: &'static str| {
        move |_: &Asked, _: usize| Reply::Whole(200, kind, String::new(), body.to_string())
    };
    for (message, (told, _, asked)) in [
        (
            "it answers with a web page: Welcome",
            failure(whole("text/html", "<html><title>Welcome</title></html>")),
        ),
        (
            "its answer is no whole JSON: {\"choices\": [{",
            failure(whole("application/json", "{\"choices\": [{")),
        ),
        ("its answer holds no choices", failure(whole("application/json", "{\"choices\": []}"))),
        (
            "its answer holds no choices",
            failure(whole("text/event-stream", "data: {\"choices\": []}\n\ndata: [DONE]\n\n")),
        ),
        (
            "a part of its answer is no JSON: {\"choi",
            failure(whole("text/event-stream", "data: {\"choi\n\n")),
        ),
        ("what it sends is no stream of events: hello", failure(whole("text/plain", "hello\nworld\n"))),
        ("status 400: no tools here", failure(|_, _| fails(400, "no tools here"))),
        ("status 404: no such model", failure(|_, _| fails(404, "no such model"))),
        (
            "the server stopped with an error: odd",
            failure(whole(
                "text/event-stream",
                "data: {\"error\": {\"message\": \"odd\", \"code\": 400}}\n\n",
            )),
        ),
    ] {
        assert_eq!((told.as_str(), asked), (message, 1));
    }
    let (_, hint, _) = failure(|_, _| fails(400, "no tools here"));
    assert!(hint.contains("--enable-auto-tool-choice") && hint.contains("--jinja"), "{hint}");
    let moved = "Location: http://elsewhere.example/v1\r\n".to_string();
    let (told, hint, _) = failure(move |_, _| Reply::Whole(302, "text/plain", moved.clone(), String::new()));
    assert_eq!(told, "status 302");
    assert!(hint.contains("http://elsewhere.example/v1"), "{hint}");
}

#[test]
fn an_answer_that_breaks_off_costs_nothing_but_itself() {
    let project = Project::new();
    let server = Server::start(|asked, nth| match nth {
        0 => Reply::CutOff(delta(json!({"content": "I will"}))),
        1 => streamed(delta(json!({"content": "Half an"})) + "data: {\"choices\": [{\"del"),
        2 => says(&format!("{} messages.", asked.body["messages"].as_array().unwrap().len())),
        _ => fails(500, "no more"),
    });
    let running = server.session(&project);
    for request in ["One", "Two"] {
        match outcome(&running, request).ending {
            Ending::ModelUnavailable { message, hint } => {
                assert!(
                    message.contains("/v1/chat/completions: the answer broke off in the middle"),
                    "{message}"
                );
                assert!(hint.contains("ask again"), "{hint}");
            }
            other => panic!("{other:?}"),
        }
    }
    // Both requests are still there, and no half answer.
    assert_eq!(outcome(&running, "Three").answer, "4 messages.");
    running.quit();
    assert_eq!(server.chats().len(), 3);
    let roles: Vec<Role> = project.history().iter().map(|message| message.role).collect();
    assert_eq!(roles, [Role::System, Role::User, Role::User, Role::User, Role::Assistant]);
}

#[test]
fn an_interrupt_ends_a_silent_stream_and_keeps_what_came() {
    let project = Project::new();
    let server = Server::start(|_, nth| match nth {
        0 => Reply::Hangs(delta(json!({"content": "So far"}))),
        1 => Reply::Hangs(String::new()),
        _ => says("Gone on."),
    });
    let running = server.session(&project);
    running.send(Op::Submit { text: "One".into() });
    running.until(|event| matches!(event, Event::TextDelta { text } if text == "So far").then_some(()));
    running.send(Op::Interrupt);
    let ending = |running: &crate::agent::Running| {
        running.until(|event| match event {
            Event::TurnFinished { outcome } => Some((outcome.ending.clone(), outcome.answer.clone())),
            _ => None,
        })
    };
    assert_eq!(ending(&running), (Ending::Interrupted, "So far".into()));
    // Before the first word as well.
    running.send(Op::Submit { text: "Two".into() });
    while server.chats().len() < 2 {
        std::thread::sleep(Duration::from_millis(2));
    }
    running.send(Op::Interrupt);
    assert_eq!(ending(&running), (Ending::Interrupted, String::new()));
    assert_eq!(outcome(&running, "Three").answer, "Gone on.");
    running.quit();
}

#[test]
fn the_key_goes_to_the_server_and_nowhere_else() {
    let server = Server::start(|_, nth| match nth {
        0 => says("Hello."),
        _ => fails(401, "the key sk-very-secret is not good"),
    });
    let key = Some(Key::new("QWRIGHT_API_KEY", "sk-very-secret"));
    let options = EndpointOptions { key, ..server.options() };
    assert!(!format!("{options:?}").contains("sk-very"));
    let mut model = open(&options).unwrap();
    ask(&mut model).0.unwrap();
    let Err(ModelError::Unavailable { message, hint }) = ask(&mut model).0 else { panic!() };
    assert!(message.ends_with("status 401: the key [key] is not good"), "{message}");
    assert_eq!(hint, "the key in QWRIGHT_API_KEY is not accepted");
    let asked = server.asked.lock().unwrap();
    assert!(asked.iter().all(|asked| asked.authorization.as_deref() == Some("Bearer sk-very-secret")));
    let unset = Some(Key::new("QWRIGHT_API_KEY", "two words"));
    assert!(open(&EndpointOptions { key: unset, ..server.options() }).is_err());
}

#[test]
fn which_model_and_how_much_it_holds() {
    let models = json!({"data": [
        {"id": "Qwen3-Coder-480B-A35B-Instruct", "max_model_len": 131072},
        {"id": "Qwen2.5-Coder-1.5B-Instruct"},
    ]});
    let server = Server::with_models(models, |_, _| says("Hi."));
    let model = server.model();
    let info = model.info();
    assert!(info.name.starts_with("Qwen3-Coder-480B-A35B-Instruct at 127.0.0.1:"), "{}", info.name);
    assert_eq!((info.context, info.format, info.billions), (131_072, ChatFormat::Qwen3Coder, 480.0));
    let named = |name: &str, context| {
        let options = EndpointOptions { model: Some(name.into()), context, ..server.options() };
        open(&options).unwrap().info().clone()
    };
    let small = named("Qwen2.5-Coder-1.5B-Instruct", None);
    assert_eq!((small.context, small.format, small.billions), (32_768, ChatFormat::HermesQwen25, 1.5));
    assert_eq!(named("unlisted", Some(4096)).context, 4096);
    assert_eq!(served(&server.options(), &AtomicBool::new(false)).unwrap().len(), 2);
    let empty = Server::with_models(json!({"data": []}), |_, _| says("Hi."));
    let Err(ModelError::Unavailable { message, hint }) = open(&empty.options()) else { panic!() };
    assert!(
        message.ends_with("/v1/models: the server lists no model") && hint.contains("-m NAME"),
        "{message}"
    );
}

#[test]
fn a_request_that_is_too_long_for_the_server_is_told_as_such_and_shortened_next() {
    let server = Server::start(|_, _| {
        Reply::Whole(
            400,
            "application/json",
            String::new(),
            json!({"error": {"code": 400, "message": "too long",
            "type": "exceed_context_size_error", "n_prompt_tokens": 9000, "n_ctx": 8192}})
            .to_string(),
        )
    });
    let mut model = server.model();
    let error = ask(&mut model).0.unwrap_err();
    assert!(matches!(error, ModelError::ContextFull { needed: 9000, limit: 8192 }), "{error}");
    assert_eq!(model.count_history(&[Message::new(Role::User, "Hello?")], &[]), 9000);
}

#[test]
fn an_answer_that_turns_in_circles_is_stopped() {
    let server = Server::start(|_, _| {
        Reply::Hangs((0..100).map(|_| delta(json!({"content": "the same line again and again\n"}))).collect())
    });
    assert_eq!(ask(&mut server.model()).0.unwrap().stop, StopReason::Repetition);
}

#[test]
fn a_server_that_neither_says_that_it_is_done_nor_hangs_up_is_left() {
    let done = event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}));
    let server = Server::start(move |_, _| Reply::Hangs(delta(json!({"content": "Yes."})) + &done));
    let options = EndpointOptions { linger: Duration::from_millis(50), ..server.options() };
    let answer = ask(&mut open(&options).unwrap()).0.unwrap();
    assert_eq!((answer.message.content.as_str(), answer.stop), ("Yes.", StopReason::End));
}

#[test]
fn exec_with_an_endpoint() {
    let project = Project::new();
    let run = |url: &str, arguments: &[&str], key: Option<&str>| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_qwright"));
        command.args(["exec", "--sandbox", "none", "--endpoint", url]).args(arguments);
        command.arg("Fix add").current_dir(project.files.path()).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default()).env("HOME", project.state.path());
        command.envs(key.map(|key| ("OPENAI_API_KEY", key)));
        let output = command.stdin(std::process::Stdio::null()).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let server = Server::start(fixes);
    let (code, out, err) = run(&format!("{}/v1/", server.url), &[], Some("sk-hidden"));
    assert_eq!((code, out.as_str()), (Some(0), "It adds now.\n"), "{err}");
    assert!(err.contains("served/coder at 127.0.0.1:") && err.contains("8192 tokens of context"), "{err}");
    assert!(project.text("src/add.sh").contains('+'));
    assert!(server.chats().iter().all(|asked| asked.authorization.as_deref() == Some("Bearer sk-hidden")));
    // Neither shown nor logged.
    assert!(!err.contains("sk-hidden"));
    let logs = walk(project.state.path());
    assert!(!logs.is_empty() && logs.iter().all(|text| !text.contains("sk-hidden")));

    // Nobody listens there: exit code 6, and the address is named.
    let gone = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (code, out, err) = run(&format!("http://{gone}"), &["-o", "json"], None);
    assert_eq!(code, Some(6), "{err}");
    assert!(err.contains(&format!("http://{gone}/v1/models: connection refused")), "{err}");
    assert!(serde_json::from_str::<Value>(&out).unwrap()["subtype"] == "error_model");
    let (code, _, err) = run("localhost:8000", &[], None);
    assert_eq!(code, Some(2));
    assert!(err.contains("--endpoint: endpoint: needs an address like"), "{err}");
}

/// The texts of all files beneath a folder.
fn walk(folder: &std::path::Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| match path.is_dir() {
            true => walk(&path),
            false => vec![String::from_utf8_lossy(&std::fs::read(&path).unwrap()).into_owned()],
        })
        .collect()
}

#[test]
fn an_interrupt_ends_the_wait_between_two_tries() {
    let server = Server::start(|_, _| fails(503, "loading"));
    let mut model = open(&EndpointOptions { pause: Duration::from_secs(60), ..server.options() }).unwrap();
    let cancel = AtomicBool::new(false);
    let answer = ask_with(&mut model, &[], &cancel, &mut |event| {
        if matches!(event, ModelEvent::Note(_)) {
            cancel.store(true, Ordering::SeqCst);
        }
    });
    assert_eq!(answer.unwrap().stop, StopReason::Cancelled);
}
