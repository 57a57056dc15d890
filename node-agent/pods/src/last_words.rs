//! What a container left to say when it ended: its termination message, or the end of its log.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use penstock_runtime::ContainerStatus;

use crate::context::Context;
use crate::{logs, names};

/// Limits of kubernetes `pkg/kubelet/container`: bytes of a message, and of a log's end.
const MESSAGE_BYTES_MAX: u64 = 4096;
const LOG_BYTES_MAX: u64 = 2048;
const LOG_LINES_MAX: usize = 80;

/// The file a container writes its message to, as seen from the node.
pub fn path(context: &Context, uid: &str, name: &str, attempt: u32) -> PathBuf {
    context.volumes.pod_dir(uid).join("containers").join(name).join(format!("{attempt}.message"))
}

/// The message of an ended container; empty when there is none.
pub fn read(context: &Context, uid: &str, status: &ContainerStatus) -> String {
    let message = tail(&path(context, uid, &status.name, status.attempt), MESSAGE_BYTES_MAX, false);
    let policy = status.annotations.get(names::MESSAGE_POLICY).map(String::as_str);
    if !message.is_empty() || policy != Some("FallbackToLogsOnError") || status.exit_code == 0 {
        return message;
    }
    let raw = tail(Path::new(&status.log_path), 4 * LOG_BYTES_MAX, true);
    let text: String = logs::lines(&raw).into_iter().map(|l| l.text).collect();
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let text = lines[lines.len().saturating_sub(LOG_LINES_MAX)..].concat();
    let cut = text.len().saturating_sub(usize::try_from(LOG_BYTES_MAX).unwrap_or(usize::MAX));
    let cut = (cut..=text.len()).find(|at| text.is_char_boundary(*at)).unwrap_or(0);
    text[cut..].to_string()
}

fn tail(path: &Path, bytes_max: u64, from_end: bool) -> String {
    let Ok(mut file) = File::open(path) else {
        return String::new();
    };
    let length = file.metadata().map_or(0, |m| m.len());
    if from_end && length > bytes_max {
        let _ = file.seek(SeekFrom::Start(length - bytes_max));
    }
    let mut bytes = Vec::new();
    let _ = file.take(bytes_max).read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}
