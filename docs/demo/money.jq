# Amounts as people write them.
# 1234567 -> 1,234,567
def group: tostring | explode | reverse | . as $d
    | [range(length) as $i | (if $i > 0 and $i % 3 == 0 then 44 else empty end), $d[$i]] | reverse | implode;
def sat: "\(group) sat";
# Thousandths of a satoshi, exact.
def msat: "\((. / 1000) | floor | group).\((. % 1000) + 1000 | tostring | .[1:]) sat";
