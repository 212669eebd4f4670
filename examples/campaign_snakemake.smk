# A campaign with Snakemake: snakemake -s examples/campaign_snakemake.smk --config campaign=bg --cores 8
import json

CAMPAIGN = config["campaign"]
with open(f"{CAMPAIGN}/plan.json", encoding="utf-8") as plan:
    PARTS = [f"{part:06}" for part in range(len(json.load(plan)["partitions"]))]


rule all:
    input:
        expand("{campaign}/part-{part}.json", campaign=CAMPAIGN, part=PARTS),


rule part:
    output:
        "{campaign}/part-{part}.json",
    retries: 3
    resources:
        mem_mb=1500,
    shell:
        "pxdbg campaign part {wildcards.part} {wildcards.campaign}"
