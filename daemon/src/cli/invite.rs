//! `invite`: prints only the token.

use anyhow::Context as _;

use super::{Done, ask::ask, print_json};
use crate::{admin::Request, app::dir::NodeDir};

#[derive(clap::Args)]
#[command(
    after_help = "Example: creditsync --dir /srv/hub invite 410122 --name 中牟县 --address credit.example.gov.cn:7443"
)]
pub(super) struct Arguments {
    /// The new member's name, usually its division code / 成员标识
    #[arg(value_name = "ID")]
    node: String,
    /// A name for people / 显示名称
    #[arg(long)]
    name: Option<String>,
    /// How long the token may be used: 30m, 24h, 7d / 有效期
    #[arg(long, default_value = "24h")]
    ttl: String,
    /// The hub's address as the member reaches it / 成员可达的地址
    #[arg(long, value_name = "HOST:PORT")]
    address: Option<String>,
    /// Print a JSON document
    #[arg(long)]
    json: bool,
}

pub(super) fn run(dir: &NodeDir, arguments: Arguments) -> anyhow::Result<Done> {
    let Arguments { node, name, ttl, address, json } = arguments;
    let ttl_s = seconds(&ttl).with_context(|| {
        format!("--ttl {ttl}: write a number and s, m, h or d, for example 24h")
    })?;
    let (answer, _) = ask(dir, &Request::Invite { node, name, ttl_s, address })?;
    if json {
        print_json(&answer)?;
    } else {
        println!("{}", answer["token"].as_str().unwrap_or_default());
        if answer["revoked"] == true || answer["removed"] == true {
            let (how, how_zh) = match answer["removed"] == true {
                true => ("was removed from the federation", "已被移出联盟"),
                false => ("is revoked", "已被吊销"),
            };
            eprintln!(
                "this node {how}, and the token lets it in again, with a new signing key; its records are kept / \
                 该节点{how_zh}，使用此令牌将使其重新加入并换用新的签名密钥，记录保留"
            );
        } else if answer["replaces_member"] == true {
            eprintln!(
                "this node is a member already. In its own directory it joins again and keeps its records and its \
                 signing key; from an empty directory it gets a new signing key, and the old directory may not write \
                 any more / 该节点已是成员：在原目录重新加入，记录和签名密钥不变；在空目录加入，则换用新的签名密钥，旧目录不能再写入"
            );
        }
        eprintln!(
            "valid until {0}, once. At the member: run 'creditsync join' and paste it (or 'creditsync join -', which \
             reads it from standard input); not on the command line / 有效期至 {0}，只能用一次。在县级运行 creditsync join 后粘贴，不要写在命令行上",
            super::text_of(&answer["expires"])
        );
    }
    Ok(Done::Well)
}

fn seconds(text: &str) -> Option<u64> {
    let (number, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, "s"),
    };
    let factor = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 24 * 3600,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::seconds;

    #[test]
    fn a_ttl_has_a_unit() {
        assert_eq!(seconds("90"), Some(90));
        assert_eq!(seconds("24h"), Some(86_400));
        assert_eq!(seconds("7d"), Some(604_800));
        for bad in ["", "h", "1w", "1h30m", "-1s", "99999999999999999999d"] {
            assert_eq!(seconds(bad), None, "{bad}");
        }
    }
}
