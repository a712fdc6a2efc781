#!/bin/sh
# The job of ./demo: what the names of all Unicode characters are made of. Runs in the guest, and again outside to compare.
# Reads UnicodeData.txt, NamesList.txt and Unihan_Readings.txt.bz2 here; writes words.txt, triples.txt, syllables.txt.
set -eu
export LC_ALL=C

# Both files are the work of the same people, so they must name the same characters.
awk -F';' '$2 !~ /^</ { print $1, $2 }' UnicodeData.txt | sort >named.1
awk -F'\t' '/^[0-9A-F]+\t[^<]/ { print $1, $2 }' NamesList.txt | sort >named.2
echo "characters named in UnicodeData.txt: $(wc -l <named.1)"
echo "characters named in NamesList.txt: $(wc -l <named.2)"
echo "of them named differently: $(sort named.1 named.2 | uniq -u | wc -l)"

# Which words names are made of.
cut -d' ' -f2- named.1 | tr ' ' '\n' | tr - '\n' | sort | uniq -c | sort -k1,1nr -k2 >words.txt
echo "different words in names: $(wc -l <words.txt)"
head -n 5 words.txt

# Which three letters follow each other.
cut -d' ' -f2- named.1 |
    awk '{ for (i = 1; i <= length($0) - 2; i++) count[substr($0, i, 3)]++ } END { for (each in count) print count[each], each }' |
    sort -k1,1nr -k2 >triples.txt
echo "different triples of letters: $(wc -l <triples.txt)"
head -n 3 triples.txt

# How many ideographs share a Mandarin reading, tone marks and all.
bunzip2 -c Unihan_Readings.txt.bz2 |
    awk -F'\t' '$2 == "kMandarin" { n = split($3, said, " "); for (i = 1; i <= n; i++) count[said[i]]++ }
        END { for (each in count) print count[each], each }' | sort -k1,1nr -k2 >syllables.txt
echo "Mandarin syllables: $(wc -l <syllables.txt)"
head -n 3 syllables.txt
