//! What to do about an error of the file system, for people.
//!
//! Whatever met it named the file; libraries tell of it in texts of their own, so it is
//! found by the system's number in the whole text. Nothing is decided by it.

/// A number of the system, as Rust's standard library ends such an error's text, and what
/// to do about it.
const KNOWN: [(&str, &str); 5] = [
    (
        "(os error 13)",
        "当前用户无权访问该文件，未移动或删除任何内容：请以节点目录所有者的身份（运行服务的用户或 root）执行，或用 chown -R、chmod 恢复权限后重试 \
         / this user may not use that file; nothing was moved or deleted. Work as the owner of the node's directory (the \
         service's user, or root), or give the files back to it (chown -R, chmod)",
    ),
    (
        "(os error 30)",
        "该磁盘为只读，未做任何更改：磁盘出错时系统会改为只读，请查看系统日志（dmesg），修复后重新挂载为可写再启动 / the file system is \
         read-only; nothing was changed. Systems make it so after an error of the disk: look at 'dmesg', repair it, mount it \
         writable again, then start the node",
    ),
    ("(os error 28)", "磁盘空间已满：请清理后重试 / the disk is full: make room, then try again"),
    (
        "(os error 5)",
        "磁盘读写出错，可能即将损坏：请查看系统日志（dmesg），尽快备份（creditsync backup）并更换磁盘 / the disk reports an error and \
         may be about to fail: look at 'dmesg', make a backup (creditsync backup), and replace it",
    ),
    (
        "(os error 24)",
        "打开的文件过多：请提高该服务的文件数上限（LimitNOFILE）/ too many files are open: raise the service's limit (LimitNOFILE)",
    ),
];

/// What to do about the error with this text, if it is one of those.
pub(super) fn advice(text: &str) -> Option<&'static str> {
    KNOWN.into_iter().find_map(|(number, advice)| text.contains(number).then_some(advice))
}

#[cfg(test)]
mod tests {
    use rustix::io::Errno;

    use super::*;

    #[test]
    fn the_numbers_are_this_systems() {
        for (errno, words) in [
            (Errno::ACCESS, "chown"),
            (Errno::ROFS, "read-only"),
            (Errno::NOSPC, "make room"),
            (Errno::IO, "dmesg"),
            (Errno::MFILE, "LimitNOFILE"),
        ] {
            let error = std::io::Error::from_raw_os_error(errno.raw_os_error());
            let text = format!("open the store at x: {error}");
            assert!(advice(&text).is_some_and(|advice| advice.contains(words)), "{text}");
        }
        assert_eq!(advice("(os error 2) and nothing to say"), None);
    }
}
