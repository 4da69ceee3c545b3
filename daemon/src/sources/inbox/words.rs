//! What people are told about files and folders of the inbox that are not taken, in
//! Chinese and in English.
//!
//! Used by whoever finds the reason. Invariant: each says what is wrong and what to do.
//! Not here: where it is written (`strays`), and reports of files that were dealt with
//! (`ingest::report::text`).

use std::{ffi::OsStr, io, time::Duration};

use super::names::Meaning;
use crate::{
    ingest::{ImportError, words::languages},
    sources::file::shown,
};

/// A file beside the datasets' folders, which are listed.
pub(super) fn beside_folders(list_zh: &str, list: &str) -> [String; 2] {
    [
        format!("请把该文件放入数据集的文件夹：{list_zh}"),
        format!("put the file into the folder of its dataset: {list}"),
    ]
}

/// A folder that no dataset is called like.
pub(super) fn no_dataset(list_zh: &str, list: &str) -> [String; 2] {
    [
        format!(
            "没有与该文件夹同名的数据集，其中的文件不会被读取；数据集有：{list_zh}。请把文件移入对应数据集的文件夹，并删除该文件夹"
        ),
        format!(
            "no dataset has this folder's name, so its files are not read; the datasets are: {list}. Move its files into the folder of their dataset, and delete this one"
        ),
    ]
}

/// More folders than are read.
pub(super) fn too_many_folders(depth: usize, folders: usize) -> [String; 2] {
    [
        format!("文件夹层数超过 {depth} 或个数超过 {folders}，其中的文件不会被读取，请上移或清理"),
        format!(
            "folders are more than {depth} deep or {folders} in number, so files in this one are not read: move them up, or clear folders"
        ),
    ]
}

pub(super) fn unreadable_folder(error: &io::Error) -> [String; 2] {
    let [zh, en] = languages(error);
    [
        format!("无法读取该文件夹（{zh}），请检查其权限"),
        format!("the folder cannot be read ({en}): check its permissions"),
    ]
}

/// A file that may be read later.
pub(super) fn unreadable(error: &ImportError) -> [String; 2] {
    let [zh, en] = languages(error);
    [format!("暂时无法读取该文件：{zh}"), format!("the file cannot be read for now: {en}")]
}

/// A folder out of which a file that was dealt with cannot be moved.
pub(super) fn cannot_be_moved(name: &str, error: &io::Error) -> [String; 2] {
    [
        format!(
            "其中的“{name}”已处理，但无法移走：creditsync 没有写入该文件夹的权限（{error}），请修改权限"
        ),
        format!(
            "'{name}' in it was dealt with and cannot be moved: creditsync may not write to this folder ({error}); change its permissions"
        ),
    ]
}

/// A file of a dataset of which nothing can be imported.
pub(super) fn waits_for(error: &ImportError) -> [String; 2] {
    let [zh, en] = languages(error);
    [
        format!("该文件在等待，其后的同一数据集文件也在等待；原因消除后自动处理。原因：{zh}"),
        format!(
            "the file waits, and those of its dataset behind it; it is taken by itself once the reason is gone: {en}"
        ),
    ]
}

/// A folder whose name means something in another place.
pub(super) fn misplaced(meaning: Meaning) -> [String; 2] {
    match meaning {
        Meaning::Full => [
            "此处不读取该文件夹：全量文件请放入“数据集/full/”（小写，直接位于数据集文件夹下）；若是增量文件，请给文件夹换个名称".into(),
            "this folder is not read here: full files belong into DATASET/full/ (in lower case, right below the dataset's folder); if the files are changes, give the folder another name".into(),
        ],
        Meaning::DealtWith => [
            "此处不读取该文件夹：done、attention、failed 用于存放已处理的文件；若其中的文件需要导入，请移到别的文件夹".into(),
            "this folder is not read here: done, attention and failed hold files that were dealt with; move files that are to be imported into another folder".into(),
        ],
    }
}

/// A link, a pipe, a device.
pub(super) fn not_a_file() -> [String; 2] {
    [
        "这不是普通文件（例如是符号链接），不会被读取；请放入文件本身".into(),
        "this is no regular file (a symbolic link, for example) and is not read: put the file itself here"
            .into(),
    ]
}

/// A file behind one that is waited for.
pub(super) fn waits_behind(name: &OsStr, wait: Duration) -> [String; 2] {
    let (name, seconds) = (shown(&name.to_string_lossy()), wait.as_secs());
    [
        format!(
            "正在等待较早的文件“{name}”传完，之后才处理该文件，最多等待 {seconds} 秒；“{name}”若已传完，请在它旁边放一个空文件 {name}.done"
        ),
        format!(
            "the older file '{name}' is waited for, at most {seconds} seconds, and this one is taken behind it: if '{name}' is complete, put an empty file {name}.done beside it"
        ),
    ]
}

/// A file whose name says that it is not complete.
pub(super) fn never_renamed() -> [String; 2] {
    [
        "文件名表示尚未传完（.part、.tmp 等），因此未读取；若已传完，请改回正式的文件名".into(),
        "its name says that the file is not complete (.part, .tmp and the like), so it is not read: if it is, give it its proper name"
            .into(),
    ]
}

/// A mark without what it marks.
pub(super) fn without_its_file() -> [String; 2] {
    [
        "这是“已传完”的标记，但旁边没有它所指的文件；请放入该文件，或删除标记".into(),
        "this marks a file as complete that does not lie beside it: put the file here, or delete the mark"
            .into(),
    ]
}
