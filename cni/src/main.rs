//! The CNI plugin's entry: reads standard input and CNI_*, prints the result or the error object.
//!
//! It exists to keep reading and printing in one place. It must not know any verb.

use std::io::{Read, Write};
use std::process::ExitCode;

use penstock_cni::spec::{CONFIG_BYTES_MAX, Code, Environment, Failure, Verb, Version};
use penstock_cni::verbs;
use serde_json::Value;

fn main() -> ExitCode {
    let environment = Environment::read(|name| std::env::var(name).ok());
    let config = match read_config(&environment) {
        Ok(config) => config,
        Err(failure) => return fail(&failure, &[]),
    };
    match verbs::run(&environment, &config) {
        Ok(None) => ExitCode::SUCCESS,
        Ok(Some(value)) => print(&value, ExitCode::SUCCESS),
        Err(failure) => fail(&failure, &config),
    }
}

fn read_config(environment: &Environment) -> Result<Vec<u8>, Failure> {
    // Refuse before reading: a person who runs the plugin by hand should not be left waiting for input.
    if environment.verb()? == Verb::Version && std::io::IsTerminal::is_terminal(&std::io::stdin()) {
        return Ok(Vec::new());
    }
    let mut config = Vec::new();
    std::io::stdin().lock().take(CONFIG_BYTES_MAX + 1).read_to_end(&mut config).map_err(|error| {
        Failure::new(Code::InputOutput, "standard input cannot be read").details(error.to_string())
    })?;
    if config.len() as u64 > CONFIG_BYTES_MAX {
        let message = format!("the network configuration is longer than {CONFIG_BYTES_MAX} bytes");
        return Err(Failure::new(Code::InvalidConfig, message));
    }
    Ok(config)
}

fn fail(failure: &Failure, config: &[u8]) -> ExitCode {
    let asked = serde_json::from_slice::<Value>(config).ok();
    let asked = asked.as_ref().and_then(|value| value.get("cniVersion")?.as_str());
    print(&failure.render(asked.unwrap_or(Version::newest().as_str())), ExitCode::FAILURE)
}

fn print(value: &Value, code: ExitCode) -> ExitCode {
    match writeln!(std::io::stdout(), "{value}") {
        Ok(()) => code,
        // Nobody reads the answer, so nobody can act on it: let the exit code say so.
        Err(_) => ExitCode::FAILURE,
    }
}
