//! The demo application, and the pause process of every pod sandbox.
//!
//! One static program with a handful of verbs, so that an image needs nothing else in it: `serve` answers HTTP and UDP
//! with the name of the pod and the node, `fetch`, `ask` and `resolve` are the clients and `press` many of them, `pause`
//! holds a sandbox's namespaces.

mod client;
mod pause;
mod press;
mod serve;

const USAGE: &str =
    "usage: demo serve [HTTP_PORT [UDP_PORT]]   answer HTTP (8080) and UDP (8081) with pod and node
       demo fetch URL [COUNT]             GET http://HOST[:PORT]/PATH, each on a connection of its own
       demo ask HOST:PORT [COUNT]         send a UDP datagram and print the answer
       demo press HOST:PORT HOST:PORT N   N connections a second, kept ones, and datagrams to the second
                                          address, until the end of standard input; tells what failed
       demo resolve NAME                  print every address that a name has
       demo pause                         reap children and wait for SIGTERM";

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let outcome = match words.as_slice() {
        ["serve", ports @ ..] if ports.len() <= 2 => serve::run(ports),
        ["fetch", url, count @ ..] if count.len() <= 1 => client::fetch_all(url, count.first().copied()),
        ["ask", address, count @ ..] if count.len() <= 1 => client::ask_all(address, count.first().copied()),
        ["press", http, udp, rate] => press::run(http, udp, rate),
        ["resolve", name] => client::resolve(name),
        ["pause"] => pause::run(),
        _ => Err(USAGE.to_owned()),
    };
    if let Err(error) = outcome {
        eprintln!("{error}");
        std::process::exit(1);
    }
}
