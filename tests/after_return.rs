//! Nothing of a call goes out after it has returned, not even what the system had taken for sending.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::mpsc::channel;

use arctos_tests::api::{FAILED, NOT_CREATED, Owned, REJECTED, task};
use arctos_tests::stage::{config, with};
use arctos_tests::sys;
use serde_json::json;
use socket2::{Domain, Socket, Type};

#[test]
fn a_request_that_the_system_still_holds_is_dropped_when_the_answer_comes_first() {
    for (answer, code, length) in [
        ("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n", REJECTED, 1_000_000),
        // The client's system takes all of it at once, and the connection could be kept.
        ("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"status\":0}", FAILED, 200_000),
    ] {
        answers_first(answer, code, length);
    }
}

/// A server that answers after the first bytes of a request with a remark of this length.
fn answers_first(answer: &'static str, code: i32, length: usize) {
    // A small window keeps most of the request in the client's system.
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    listener.set_recv_buffer_size(8 * 1024).expect("a small buffer");
    listener.bind(&"127.0.0.1:0".parse::<std::net::SocketAddr>().expect("an address").into()).expect("a port");
    listener.listen(1).expect("a listener");
    let port = listener.local_addr().expect("an address").as_socket().expect("an IP address").port();
    let (answered, wait_for_answer) = channel();
    let (returned, wait_for_return) = channel::<()>();
    let server = std::thread::spawn(move || {
        let mut socket: TcpStream = listener.accept().expect("a connection").0.into();
        let mut begin = [0; 100];
        socket.read_exact(&mut begin).expect("the begin of the request");
        socket.write_all(answer.as_bytes()).expect("an answer");
        answered.send(()).expect("the test waits");
        wait_for_return.recv().expect("the call returns");
        let at_return = sys::unread(&socket);
        let mut rest = Vec::new();
        // The reset may come before what had arrived is read, and ends the reading with an error.
        let _ = socket.read_to_end(&mut rest);
        (at_return, rest.len())
    });
    let keys = json!({ "idle_timeout_ms": 50_000 });
    let client = Owned::new(&with(config(&format!("http://127.0.0.1:{port}")), keys));
    let remark = "x".repeat(length);
    let long = task("BR0943-1").replacen('{', &format!("{{\"task_remark\":\"{remark}\","), 1);
    let reply = client.add(&long);
    wait_for_answer.recv().expect("the server has answered");
    returned.send(()).expect("the server waits");
    // Closes what it has kept.
    drop(client);
    assert_eq!((reply.code, reply.outcome), (code, NOT_CREATED), "{reply:?}");
    let (at_return, arrived) = server.join().expect("the server ends");
    assert!(arrived <= at_return, "{} bytes arrived after the call had returned", arrived - at_return);
    assert!(arrived < remark.len() / 2, "the window was not small: {arrived} bytes");
}
