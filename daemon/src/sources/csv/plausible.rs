//! Whether a text is what somebody wrote, or bytes that were read in the wrong
//! encoding.
//!
//! Nearly every sequence of bytes decodes as GB18030, so that it decodes says
//! nothing. What people write in Chinese consists mostly of a few hundred
//! characters; what Big5, Shift_JIS, EUC-KR or Latin bytes turn into does not.
//! Used by `detect` for a file and by `batch` for a row. Not here: which encoding
//! it is instead; `detect` names the candidates.

use std::sync::LazyLock;

use encoding_rs::GB18030;

/// Characters that make up most of any Chinese text, and of registers: places,
/// kinds of companies, offices and penalties.
const COMMON: &str = "\
的一是不了在人有我他这个们中来上大为和国地到以说时要就出会可也你对生能而子那得于着下自之年过发后作里用道行所然家种事成方多经么去法学如都同现当没动面起看定天分还进好小部其些主样理心她本前开但因只从想实日军者意无力它与长把机十民第公此已工使情明性知全三又关点正业外将两高间由问很最重并物手应战向头文体政美相见被利什二等产或新己制身果加西斯月话合回特代内信表化老给世位次度门任常先海通教儿原东声提立及比员解水名真论处走义各入几口认条平系气题活尔更别打女变四神总何电数安少报才结反受目太量再感建务做接必场件计管期市直德资命山金指克许统区保至队形社便空决治展马科司五基眼书非则听白却界达光放强即像难且权思王象完设式色路记南品住告类求据程北边死张该交规万取拉格望觉术领共确传师观清今切院让识候带导争运\
省县镇乡村街道州城郑河豫限责股份有限公司企业商贸集团服务咨询技术科技建设工程装饰装修房地产开发投资管理文化传媒广告物流运输餐饮食品药酒店百货超市农林牧渔养殖种植合作社个体工商户经营部门厂所站局厅委会院校园医疗器械材料电子网络信息软件设备机械制造加工销售批发零售维修租赁贸易进出口财务税人力源劳动保险证券银行监督管理行政处罚许可决定书文号编号登记注册统一用代码名称类型法定表人姓住址地范围期至日期限状态正常吊销注销成立核准机关内容事由依据结果金额元万款单位电话备注明测试甲乙丙丁戊新华路号楼室层东西南北中环路大厦花园小区街办一二三四五六七八九十百千";

/// Hanzi of a text beyond which a verdict on their frequency is allowed. Fewer may
/// be anybody's name.
const HANZI_MIN: usize = 6;
/// Hanzi of which one at least is common: of a name with as many.
const RARELY_NONE_MIN: usize = 4;
/// Least share of common characters, in percent, among so many. In real registers
/// no hundred rows of names, addresses and reasons fall below 35; Korean read as
/// GB18030 reaches 10.
const COMMON_PERCENT_MIN: usize = 18;
/// Most strange characters, in percent of those beyond ASCII.
const STRANGE_PERCENT_MAX: usize = 15;

/// What a text's characters beyond ASCII are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Wide {
    /// Hanzi that everybody uses.
    pub common: usize,
    /// Other hanzi of GB 2312.
    pub usual: usize,
    /// Punctuation, full-width forms, numbers in circles.
    pub marks: usize,
    /// Hanzi that GB 2312 does not have.
    pub rare: usize,
    /// What a Chinese register hardly has: kana, hangul, accented letters, box
    /// drawing, private use, control characters.
    pub strange: usize,
}

impl Wide {
    pub fn of(text: &str) -> Self {
        let mut wide = Wide::default();
        let beyond_ascii = text.chars().filter(|character| !character.is_ascii());
        beyond_ascii.for_each(|character| wide.add(class_of(character)));
        wide
    }

    pub fn add(&mut self, class: Class) {
        match class {
            Class::Common => self.common += 1,
            Class::Usual => self.usual += 1,
            Class::Mark => self.marks += 1,
            Class::Rare => self.rare += 1,
            Class::Strange => self.strange += 1,
        }
    }

    pub fn count(self) -> usize {
        self.common + self.usual + self.marks + self.rare + self.strange
    }

    /// Whether too many of its characters are what a Chinese register hardly has.
    pub fn is_strange(self) -> bool {
        self.strange * 100 > self.count() * STRANGE_PERCENT_MAX
    }

    /// Whether somebody may have written that in Chinese.
    pub fn is_plausible(self) -> bool {
        let hanzi = self.common + self.usual + self.rare;
        if self.is_strange() {
            return false;
        }
        // More rare than common ones: a name may be like that, a text is not.
        if self.rare > self.common + self.usual {
            return false;
        }
        match hanzi {
            0..RARELY_NONE_MIN => true,
            RARELY_NONE_MIN..HANZI_MIN => self.common > 0,
            _ => self.common * 100 >= hanzi * COMMON_PERCENT_MIN,
        }
    }

    /// For comparing two readings of the same bytes: the better one is higher.
    pub fn score(self) -> i64 {
        let weighed = 4 * self.common as i64 + (self.usual + self.marks) as i64
            - 2 * self.rare as i64
            - 4 * self.strange as i64;
        weighed * 100 / (self.count().max(1) as i64)
    }
}

/// What a character beyond ASCII is; the fields of [`Wide`] say more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    Common,
    Usual,
    Mark,
    Rare,
    Strange,
}

pub(super) fn class_of(character: char) -> Class {
    static SORTED: LazyLock<Vec<char>> = LazyLock::new(|| {
        let mut all: Vec<char> = COMMON.chars().filter(|c| !c.is_ascii()).collect();
        all.sort_unstable();
        all.dedup();
        all
    });
    match character {
        '\u{3400}'..='\u{9fff}' | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{3ffff}' => {
            if SORTED.binary_search(&character).is_ok() {
                Class::Common
            } else if is_gb2312(character) {
                Class::Usual
            } else {
                Class::Rare
            }
        }
        // Punctuation, full-width forms, numbers in circles, units, arrows, Roman
        // numerals; invisible characters are somebody else's business.
        '\u{2000}'..='\u{206f}'
        | '\u{2103}'
        | '\u{2116}'
        | '\u{2150}'..='\u{218f}'
        | '\u{2190}'..='\u{21ff}'
        | '\u{2200}'..='\u{22ff}'
        | '\u{2460}'..='\u{24ff}'
        | '\u{25a0}'..='\u{25ff}'
        | '\u{3000}'..='\u{303f}'
        | '\u{3200}'..='\u{33ff}'
        | '\u{fe30}'..='\u{fe4f}'
        | '\u{ff00}'..='\u{ff60}'
        | '\u{feff}'
        | '·'
        | '×'
        | '÷'
        | '°'
        | '±'
        | '§'
        | '²'
        | '³'
        | '\u{a0}'
        | '\u{ad}' => Class::Mark,
        _ => Class::Strange,
    }
}

/// Whether GB 2312 has a hanzi: two bytes, both in its square.
fn is_gb2312(character: char) -> bool {
    let mut buffer = [0; 4];
    let (bytes, _, _) = GB18030.encode(character.encode_utf8(&mut buffer));
    matches!(*bytes, [0xb0..=0xf7, 0xa1..=0xfe])
}

#[cfg(test)]
mod tests {
    use encoding_rs::{BIG5, EUC_JP, EUC_KR, GB18030, SHIFT_JIS, WINDOWS_1251, WINDOWS_1252};

    use super::*;

    #[test]
    fn chinese_is_plausible() {
        for text in [
            "甲",
            "郑州鑫淼磊商贸有限公司",
            "河南省郑州市中牟县官渡镇",
            "当事人未按照规定的期限申报纳税",
            "张喆",
            "无",
            "№ 3 ·（二）①",
            "焱犇餐饮店",
            "",
        ] {
            assert!(Wide::of(text).is_plausible(), "{text}: {:?}", Wide::of(text));
        }
    }

    #[test]
    fn other_encodings_read_as_gb18030_are_not() {
        for (encoding, text) in [
            (BIG5, "統一編號中華民國政府"),
            (BIG5, "台北市政府測試"),
            (SHIFT_JIS, "東京都千代田区"),
            (SHIFT_JIS, "ソフトウェア株式会社"),
            (EUC_KR, "서울특별시한국"),
            (EUC_KR, "대한민국"),
            (EUC_KR, "대한민국 서울특별시 강남구 테헤란로"),
            (EUC_JP, "東京都のソフトウェア株式会社です"),
            (WINDOWS_1252, "Müller & Söhne Jürgen"),
            (WINDOWS_1251, "Общество с ограниченной ответственностью"),
        ] {
            let (bytes, _, lost) = encoding.encode(text);
            assert!(!lost, "{text}");
            let (read, _) = GB18030.decode_without_bom_handling(&bytes);
            assert!(!Wide::of(&read).is_plausible(), "{text}: {read} {:?}", Wide::of(&read));
        }
    }
}
