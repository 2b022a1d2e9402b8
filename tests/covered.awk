#  covered - of "llvm-cov show": how many lines of each file ran, class tests left out
#
#  usage      awk -v root=FOLDER [-v show=1] -f covered.awk; show names the lines that did not run, too

BEGIN { FS = "|" }

/^\/.*:$/ {
    file = substr ($0, length (root) + 2)
    testing = 0
}

/\/\/  Self test/ { testing = 1 }

!testing && NF >= 3 && $2 ~ /[0-9]/ {
    lines[file]++
    ran[file] += $2 !~ /^ *0$/
    if (show && $2 ~ /^ *0$/)
        print file $0
}

END {
    for (file in lines)
        printf "%-24s %4d of %4d lines, %5.1f %%\n", file, ran[file], lines[file],
            100 * ran[file] / lines[file]
}
