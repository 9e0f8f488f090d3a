//! Between a server and the Kubernetes API: passes everything on, or answers every request with an error of its own.
//! `kubectl proxy` is behind it, so that it need not speak TLS.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex};

use crate::cluster::Cluster;
use crate::services::{Service, free_port};

/// The relay; it goes on until the program ends.
#[derive(Debug)]
pub struct ApiRelay {
    /// Of `http://127.0.0.1:<port>`.
    pub port: u16,
    state: Arc<Mutex<State>>,
    _proxy: Service,
}

#[derive(Debug, Default)]
struct State {
    /// Code and reason of the answer to everything.
    answer: Option<(u16, &'static str)>,
    open: Vec<TcpStream>,
}

impl ApiRelay {
    /// Starts one whose `kubectl proxy` logs into this folder.
    pub fn start(dir: &std::path::Path) -> Self {
        let behind = free_port();
        let command = Cluster::shared().kubectl_command();
        let mut words = command.split(' ');
        let mut proxy = Command::new(words.next().expect("it has a program"));
        proxy.args(words).args(["proxy", &format!("--port={behind}")]);
        let service = Service::start(&mut proxy, &dir.join("proxy.log"));
        while TcpStream::connect(("127.0.0.1", behind)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback is there");
        let port = listener.local_addr().expect("it is bound").port();
        let state: Arc<Mutex<State>> = Arc::default();
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let shared = Arc::clone(&shared);
                std::thread::spawn(move || serve(client, behind, &shared));
            }
        });
        Self { port, state, _proxy: service }
    }

    /// From now on every request gets this answer, and calls that were open are cut.
    pub fn answer(&self, code: u16, reason: &'static str) {
        self.set(Some((code, reason)));
    }

    /// From now on everything passes.
    pub fn pass(&self) {
        self.set(None);
    }

    fn set(&self, answer: Option<(u16, &'static str)>) {
        let mut state = self.state.lock().expect("nobody panics while holding the lock");
        state.answer = answer;
        for connection in state.open.drain(..) {
            let _ = connection.shutdown(Shutdown::Both);
        }
    }
}

fn serve(mut client: TcpStream, behind: u16, state: &Mutex<State>) {
    let answer = {
        let mut state = state.lock().expect("nobody panics while holding the lock");
        state.open.extend(client.try_clone());
        state.answer
    };
    match answer {
        Some((code, reason)) => {
            // What it asks for does not matter.
            let _ = client.read(&mut [0; 64 << 10]);
            let body = format!(
                r#"{{"kind":"Status","apiVersion":"v1","status":"Failure","message":"injected","reason":"{reason}","code":{code}}}"#
            );
            let head = format!(
                "HTTP/1.1 {code} {reason}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = client.write_all(format!("{head}{body}").as_bytes());
        }
        None => {
            let Ok(server) = TcpStream::connect(("127.0.0.1", behind)) else { return };
            let (Ok(from), Ok(to)) = (client.try_clone(), server.try_clone()) else { return };
            std::thread::spawn(move || copy(from, to));
            copy(server, client);
        }
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream) {
    let _ = std::io::copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
}
