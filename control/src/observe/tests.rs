//! The watches against a server of a few lines, which says what a test wants said and then nothing.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;

use super::*;

/// Reads requests, tells each one's line, answers listings and lets watches and writes wait for ever.
async fn silent_server(listener: TcpListener, asked: mpsc::Sender<String>) {
    let mut connections = Tasks::new();
    while let Ok((stream, _)) = listener.accept().await {
        connections.spawn(answer(stream, asked.clone()));
    }
}

async fn answer(mut stream: TcpStream, asked: mpsc::Sender<String>) {
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8_lossy(&head).into_owned();
        let line = head.lines().next().unwrap_or_default().to_owned();
        let body = if line.contains("watch=true") {
            None
        } else if line.contains("/namespaces/kube-system") {
            Some(r#"{"apiVersion":"meta.k8s.io/v1","kind":"PartialObjectMetadata","metadata":{"name":"kube-system","uid":"id-west"}}"#)
        } else if line.contains("/namespaces?") {
            Some(r#"{"apiVersion":"v1","kind":"NamespaceList","metadata":{"resourceVersion":"7"},"items":[]}"#)
        } else {
            None
        };
        // Nobody listens any more when the test has ended.
        let _ = asked.send(line).await;
        let answer = match body {
            Some(body) => format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len()),
            // The head, and then nothing: a watch that is open.
            None => "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n".to_owned(),
        };
        if stream.write_all(answer.as_bytes()).await.is_err() {
            return;
        }
    }
}

async fn client(tasks: &mut Tasks) -> (Client, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (asked, heard) = mpsc::channel(64);
    tasks.spawn(silent_server(listener, asked));
    (Client::try_from(bounded(kube::Config::new(url), Duration::from_millis(500))).unwrap(), heard)
}

#[tokio::test]
async fn a_watch_whose_server_has_fallen_silent_is_begun_again() {
    let mut tasks = Tasks::new();
    let (client, mut heard) = client(&mut tasks).await;
    let observer = Observer::default();
    let api: Api<core::Namespace> = Api::all(client.clone());
    observer.spawn(&mut tasks, &client, api, everything(), read::namespace, |seen| &mut seen.namespaces);
    let watched_twice = async {
        let mut watches = 0;
        while watches < 2 {
            let line = heard.recv().await.unwrap();
            watches += usize::from(line.contains("watch=true") && line.contains("resourceVersion=7"));
        }
    };
    tokio::time::timeout(DEADLINE, watched_twice).await.expect("the watch is given up and begun again where it was");
    assert!(observer.now().namespaces.is_complete());
}

#[tokio::test]
async fn a_request_that_is_never_answered_fails() {
    let mut tasks = Tasks::new();
    let (client, _heard) = client(&mut tasks).await;
    let pods: Api<core::Pod> = Api::all(client);
    let listed = tokio::time::timeout(DEADLINE, pods.list(&ListParams::default())).await;
    assert!(listed.expect("it is given up").is_err());
}

#[test]
fn a_watch_ends_before_its_silence_is_one() {
    assert!(Duration::from_secs(WATCH_SECONDS.into()) < SILENCE_MAX);
}

const DEADLINE: Duration = Duration::from_secs(30);
